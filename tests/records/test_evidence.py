"""The evidence as files hold it."""

import math

import pytest
import torch

from lowland.records import Evidence


@pytest.mark.parametrize("ending", [".npz", ".json"])
def test_a_quadrature_that_is_not_random_comes_back_with_how_far_it_may_be_off(tmp_path, ending):
    about = {"converged": False, "moved": math.inf, "spacing": torch.tensor([0.1, 0.2])}
    record = Evidence(-math.inf, 0.0, "grid", 81, about)
    back = Evidence.load(record.save(tmp_path / f"evidence{ending}"))
    assert (back.log_evidence, back.error, back.method) == (-math.inf, 0.0, "grid")
    assert back.evaluations == 81
    assert back.about["converged"] is False
    assert back.about["moved"] == math.inf
    torch.testing.assert_close(back.about["spacing"].float(), about["spacing"])
