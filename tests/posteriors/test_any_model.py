"""Any model: a frozen posterior is served by a surface without examples, as where it was made."""

import pytest
import torch

import lowland as ll
from tests.models import Case, every_case, nearby, with_other_buffers


@every_case
def test_a_frozen_posterior_needs_no_example(case: Case, tmp_path):
    model = case.model()
    surface = case.surface()
    w = surface.layout.flatten(model)
    with_other_buffers(model)
    members = [surface.point(model), ll.Point(nearby(w), surface.point(model).buffers)]
    post = ll.Ensemble(members)
    right = surface.evaluate(post).nll
    frozen = post.freeze(surface)
    served = ll.Ensemble.load(frozen.save(tmp_path / "f.safetensors"), layout=surface.layout)
    server = ll.LossSurface(case.model(), case.task())
    result = server.evaluate(served, case.batches()).nll
    assert result.tolist() == pytest.approx(right.tolist(), rel=1e-6)
    assert all(torch.equal(served.draw(i), post.draw(i)) for i in range(2))
