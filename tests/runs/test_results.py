"""Results of a finished run, for commands that build nothing."""

import pytest
import torch

from lowland.errors import StoreError
from lowland.runs.results import Results


def test_what_is_missing_is_named_with_its_state(finished, tmp_path):
    results = Results(finished.run, tmp_path)
    with pytest.raises(StoreError, match=r"train/sgd-0 is missing; run the `lowland run` command"):
        results.load(finished.run.annealed(0))
    assert list(tmp_path.iterdir()) == []  # nothing is built


def test_a_posterior_has_the_scale_that_was_chosen(finished):
    method = finished.method("swag")
    post, tuned = finished.results.posterior(method)
    at_one = method.posterior(finished.run, finished.inputs(method))
    expected = at_one.with_scale(tuned["scale"])
    assert torch.equal(post.draw(0), expected.draw(0))
    assert tuned["scale"] == 1.0 or not torch.equal(post.draw(0), at_one.draw(0))
