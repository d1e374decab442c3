"""Any model: chains in a subspace see its loss, and their draws have its buffers."""

import pytest
import torch

import lowland as ll
from tests.models import Case, every_case, with_other_buffers


@every_case
def test_chains_see_the_loss_with_the_centres_buffers(case: Case):
    if case.name == "lazy":
        pytest.skip("its mask depends on the batch that comes first")
    model, surface = case.model(), case.surface()
    with_other_buffers(model)
    sub = ll.Subspace.random(surface.point(model), rank=1, seed=0)
    z = torch.tensor([[0.0], [0.1]])
    density = ll.LogLikelihood(surface, strategy="points").along(sub, z)
    expected = [float(surface.log_likelihood(point)) for point in map(sub.point, z)]
    assert density.tolist() == pytest.approx(expected, rel=1e-5)
    options = {"temperature": 1.0, "prior_scale": 0.01, "chains": 1, "samples": 2, "warmup": 1}
    chain = ll.infer(sub, surface, sampler="ess", strategy="points", **options)
    point = chain.posterior().point(0)
    assert torch.isfinite(surface(point))
    for name, buffer in surface.point(model).buffers.items() if sub.buffers else ():
        torch.testing.assert_close(point.buffers[name], buffer, equal_nan=True)
