"""Filter-normalised directions, against norms worked out layer by layer."""

import math

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.landscape.directions import iter_directions
from tests.models import CASES


def test_each_direction_can_be_had_alone():
    net = nn.Linear(3, 2)
    w = ll.ParamLayout(net).flatten(net)
    (third,) = iter_directions(net, w, [2], seed=1)
    assert torch.equal(third, ll.directions(net, w, n=3, seed=1)[2])


def norms(x, dims):
    return x.double().square().sum(dims).sqrt()


def parts(net, **options):
    layout = ll.ParamLayout(net)
    w = layout.flatten(net)
    vectors = ll.directions(net, w, **options)
    return layout.unflatten(w), [layout.unflatten(vector) for vector in vectors]


def test_rows_and_slices_have_the_weights_norms():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.Flatten(), nn.LazyLinear(3)
    )
    net(torch.zeros(2, 4, 5, 5))
    w, vectors = parts(net)
    for d in vectors:
        torch.testing.assert_close(norms(d["0.weight"], (1, 2, 3)), norms(w["0.weight"], (1, 2, 3)))
        torch.testing.assert_close(norms(d["3.weight"], 1), norms(w["3.weight"], 1))
        for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
            assert not d[name].any()  # never d := w, which others do for them
        assert (d["0.weight"] - w["0.weight"]).abs().max() > 0.1


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_have_their_outputs_along_dimension_one(groups):
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=groups))
    with torch.no_grad():  # every output's filter of another size
        net[0].weight *= torch.arange(1.0, 1 + 6 // groups)[None, :, None, None]
        net[0].weight[2:] *= 7
    w, (d, _) = parts(net)
    for g in range(groups):
        group = slice(4 // groups * g, 4 // groups * (g + 1))
        theirs = norms(w["0.weight"][group], (0, 2, 3))
        torch.testing.assert_close(norms(d["0.weight"][group], (0, 2, 3)), theirs)
    # a broken twin: along dimension 0, as for other convolutions
    assert not torch.allclose(norms(d["0.weight"], (1, 2, 3)), norms(w["0.weight"], (1, 2, 3)))


def test_the_values_are_those_of_one_output():
    """A filter's norm is that of what makes one output, result by asking the layer itself."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose1d(4, 6, 1, groups=2, bias=False)
    layout = ll.ParamLayout(layer)
    w = layout.flatten(layer)
    d = ll.directions(layer, w, n=1)[0]

    def gains(values):  # of output j: the norm of its derivative by the inputs
        weights = layout.unflatten(values)
        jacobian = torch.func.jacrev(
            lambda x: torch.func.functional_call(layer, weights, (x,))[0, :, 0]
        )(torch.zeros(1, 4, 1))
        return jacobian.flatten(1).norm(dim=1)

    torch.testing.assert_close(gains(d), gains(w))


def test_tied_weights_are_the_first_names():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.Conv1d(3, 5, 2, bias=False)
            self.up = nn.ConvTranspose1d(5, 3, 2, bias=False)
            self.up.weight = self.down.weight

    w, (d, _) = parts(Both())
    assert list(d) == ["down.weight"]
    torch.testing.assert_close(norms(d["down.weight"], (1, 2)), norms(w["down.weight"], (1, 2)))


def test_embeddings_go_word_by_word_and_lengths_stand_still():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(7, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    w, (d, _) = parts(net)
    torch.testing.assert_close(norms(d["0.weight"], 1), norms(w["0.weight"], 1))
    assert not d["1.parametrizations.weight.original0"].any()
    assert d["1.parametrizations.weight.original1"].any()


def test_layers_as_a_whole_and_plain_noise():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 3))
    w, vectors = parts(net, normalise="layer", n=3)
    assert len(vectors) == 3
    for d in vectors:
        assert d["0.weight"].norm().item() == pytest.approx(w["0.weight"].norm().item(), rel=1e-5)
        assert not d["0.bias"].any()
    layout = ll.ParamLayout(net)
    plain = ll.directions(net, layout.flatten(net), normalise=None, n=2)
    assert plain.mean().abs() < 5 / math.sqrt(plain.numel())
    assert (plain.var() - 1).abs() < 0.2


def test_directions_are_symmetric_and_nearly_at_right_angles():
    """Others draw from [0, 1], whose directions have a cosine of 0.75."""
    net = nn.Linear(300, 20)
    u, v = ll.directions(net, ll.ParamLayout(net).flatten(net))
    assert torch.cosine_similarity(u, v, dim=0).abs() < 0.05
    assert abs((u[:6000] > 0).double().mean().item() - 0.5) < 0.05
    twin = torch.rand(2, 6000)
    assert torch.cosine_similarity(*twin, dim=0) > 0.7


def test_seed_and_number_alone_say_what_a_direction_is():
    net = nn.Linear(3, 2)
    w = ll.ParamLayout(net).flatten(net)
    two, three = ll.directions(net, w, seed=4), ll.directions(net, w, n=3, seed=4)
    assert torch.equal(two, three[:2])
    assert not torch.equal(two, ll.directions(net, w, seed=5))


def test_filters_of_zeros_do_not_move():
    net = nn.Linear(3, 2)
    w = ll.ParamLayout(net).flatten(net)
    w[:3] = 0
    d = ll.directions(net, w)
    assert not d[:, :3].any()
    assert torch.isfinite(d).all()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_any_model_has_planes(case):
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    plane = ll.Plane(w, *ll.directions(surface, w))
    assert plane.size == surface.layout.size
    assert torch.isfinite(surface(plane([0.1, 0.1])))


def test_what_makes_no_sense_is_refused():
    net = nn.Linear(3, 2)
    w = ll.ParamLayout(net).flatten(net)
    with pytest.raises(ll.ConfigError, match="filter"):
        ll.directions(net, w, normalise="model")
    with pytest.raises(ll.ConfigError, match="at least 1"):
        ll.directions(net, w, n=0)
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.directions(net, w[:-1])
