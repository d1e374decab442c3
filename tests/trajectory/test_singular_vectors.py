"""Spectral norms in checkpoints: the axis of each, and vectors as power iteration has them."""

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import spectral_norm as parametrized
from torch.nn.utils.parametrizations import weight_norm

from lowland import LayoutError
from lowland.trajectory.singular_vectors import axis_of, singular_vectors, spectral_norms


def resolve_task(layer):
    """After many power iterations: u and v are the weight's own."""
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    shape = (2, 5) if isinstance(layer, nn.Linear) else (2, 4, 6, 6)
    for _ in range(100):
        layer.train()(torch.randn(shape))
    return layer


LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), 0),
    "convolution": (lambda: nn.Conv2d(4, 3, 2), 0),
    "transposed": (lambda: nn.ConvTranspose2d(4, 3, 2), 1),
    "transposed, square": (lambda: nn.ConvTranspose2d(4, 4, 2), 1),
}


@pytest.mark.parametrize("normalise", [spectral_norm, parametrized])
@pytest.mark.parametrize("name", LAYERS)
def test_vectors_of_its_own_weight_are_those_of_power_iteration(normalise, name):
    make, axis = LAYERS[name]
    torch.manual_seed(0)
    state = resolve_task(normalise(make())).state_dict()
    (norm,) = spectral_norms(state)
    assert axis_of(norm, state) == axis
    vectors = singular_vectors(norm, state[norm.weight], state)
    for key in (norm.u, norm.v):
        torch.testing.assert_close(vectors[key].float(), state[key], rtol=1e-3, atol=1e-3)
    # of another weight they are others, with its own largest singular value
    other = torch.randn_like(state[norm.weight])
    vectors = singular_vectors(norm, other, state)
    matrix = other.movedim(axis, 0).flatten(1).double()
    sigma = torch.linalg.matrix_norm(matrix, 2)
    torch.testing.assert_close(vectors[norm.u] @ matrix @ vectors[norm.v], sigma)


def test_names_without_their_partner_are_no_norm():
    assert spectral_norms({"x_u": torch.ones(2), "x_v": torch.ones(3)}) == []
    assert spectral_norms({"x_u": torch.ones(2), "x_orig": torch.ones(2, 3)}) == []
    older = {"x_bar": torch.ones(2, 3), "x_u": torch.ones(2), "x_v": torch.ones(3)}
    assert spectral_norms(older) == [("x_bar", "x_u", "x_v")]


def test_what_a_file_does_not_show_is_refused():
    both = parametrized(weight_norm(nn.Linear(4, 5)))
    state = both.state_dict()
    (norm,) = spectral_norms(state)
    with pytest.raises(LayoutError, match="several parametrizations"):
        axis_of(norm, state)
    state = spectral_norm(nn.Linear(4, 5)).state_dict()
    (norm,) = spectral_norms(state)
    with pytest.raises(LayoutError, match=r"weight_u \(7,\) .* fit no axis of weight_orig \(5, 4"):
        axis_of(norm, state | {"weight_u": torch.ones(7)})
    square = {"w_orig": torch.randn(4, 4), "w_u": torch.ones(4) / 2, "w_v": torch.ones(4) / 2}
    with pytest.raises(LayoutError, match=r"axes . and . of w_orig .* fit w_u alike"):
        axis_of(*spectral_norms(square), square)
