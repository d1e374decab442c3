"""Any model: baselines that call a network otherwise than `predict` see the same network."""

import pytest
import torch

import lowland as ll
from lowland.uncertainty.dropout import has_dropout
from lowland.uncertainty.laplace import _Network
from tests.models import Case, every_case, with_other_buffers

RANDOM = {"conv_dropout", "transformer"}


@every_case
def test_passes_with_dropout_leave_running_state_as_it_is(case: Case):
    """A layer's own statistics moved to those of the examples that were predicted."""
    surface, point = case.surface(), case.surface().point(case.model())
    assert has_dropout(surface, point) == (case.name in RANDOM)
    if case.name in RANDOM:
        return
    parameters = surface.layout.materialise(point.weights)
    buffers = surface.buffers_for(point, ll.EvalOptions(batchnorm="frozen"))
    for batch in case.batches():
        args, kwargs, _ = surface.task.parts(batch)
        with torch.no_grad():
            found = surface.forward(parameters, buffers, args, kwargs, mode="dropout")
            expected = surface.forward(parameters, buffers, args, kwargs)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["refresh", "frozen"])
@every_case
def test_the_network_of_last_layer_laplace_has_its_points_buffers(case: Case, how: str):
    model, surface = case.model(), case.surface()
    with_other_buffers(model)
    point = surface.point(model)
    args, kwargs, _ = surface.task.parts(case.batches()[0])
    if len(args) != 1 or kwargs or case.name in ("residual", "compiled"):
        return  # it takes one input
    parameters = surface.layout.materialise(point.weights)
    options = ll.EvalOptions(batchnorm=how)
    expected = surface.forward(parameters, surface.buffers_for(point, options), args, kwargs)
    found = _Network(surface, point, options)(args[0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
