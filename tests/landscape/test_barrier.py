"""Barriers of surfaces with known heights."""

import math

import pytest
import torch
from torch import Tensor, nn

import lowland as ll
from tests.landscape.surfaces import STRATEGIES, bowl, ends, network
from tests.models import images


class Squared(nn.Module):
    """x -> w² x, which has its minima at w and -w: L(w) = (w² - 1)² / 2 on the example below."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.w**2 * x


def double_well(target=1.0):
    examples = [(torch.ones(1, 1), torch.full((1, 1), target))]
    return ll.LossSurface(Squared(), ll.Regression(noise_variance=1.0), examples)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_wells(strategy):
    surface = double_well()
    plus, minus = torch.ones(1), -torch.ones(1)
    result = ll.barrier(surface, plus, minus, strategy=strategy)
    assert float(result) == pytest.approx(0.5, abs=1e-6)  # at w = 0
    assert result.t == 0.5
    assert result.distance == 2
    assert len(result.loss) == 25
    assert result.loss[0].item() == pytest.approx(0.5 * math.log(2 * math.pi))


def test_the_height_is_above_the_chord_not_above_an_end():
    """From the minimum w = 1 to w = -3/2: the highest loss is the far end, and no barrier."""
    surface = double_well()
    result = ll.barrier(surface, torch.ones(1), torch.tensor([-1.5]), points=501)
    w = 1 - 2.5 * torch.linspace(0, 1, 501, dtype=torch.float64)
    loss = (w**2 - 1) ** 2 / 2
    expected = loss - torch.linspace(0, 1, 501, dtype=torch.float64) * loss[-1]
    assert float(result) == pytest.approx(float(expected.max()), abs=1e-5)
    assert result.t == pytest.approx(float(expected.argmax()) / 500, abs=4e-3)
    naive = float(result.loss.max() - result.loss[[0, -1]].max())  # the broken twins
    mean = float(result.loss.max() - result.loss[[0, -1]].mean())
    assert naive == 0
    assert abs(mean - float(expected.max())) > 0.05


def test_hidden_units_that_change_places():
    """Two ReLU units in exchanged order compute the same; half way each is the mean of both."""
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    x = torch.tensor([[1.0], [-1.0]])
    examples = [(x, torch.tensor([[1.0], [-1.0]]))]
    surface = ll.LossSurface(net, ll.Regression(noise_variance=1.0), examples)
    # relu(x) - relu(-x) = x; half way both units are relu(0), so that the output is zero
    w0, w1 = torch.tensor([1.0, -1, 1, -1]), torch.tensor([-1.0, 1, -1, 1])
    result = ll.barrier(surface, w0, w1)
    assert result.loss[[0, -1]].tolist() == pytest.approx([0.5 * math.log(2 * math.pi)] * 2)
    assert (float(result), result.t) == (pytest.approx(0.5), 0.5)


def test_a_bowl_has_none():
    surface, _ = bowl()
    assert ll.barrier(surface, *ends()).height == 0
    assert ll.barrier(surface, *ends()).t in (0, 1)


def test_other_rows_have_a_height_of_their_own():
    other = [(torch.ones(1, 1), torch.full((1, 1), 3.0))]
    result = ll.barrier(double_well(), torch.ones(1), -torch.ones(1), loader=other)
    assert result.test_height == pytest.approx((9 - 4) / 2, abs=1e-5)
    assert math.isnan(ll.barrier(double_well(), torch.ones(1), -torch.ones(1)).test_height)


def test_statistics_are_refreshed_along_the_line():
    net = network()
    surface = ll.LossSurface(net, ll.Classification(), images())
    w = surface.layout.flatten(net)
    result = ll.barrier(surface, w, w.flip(0), points=5)
    line = ll.Line(w, w.flip(0))
    expected = [float(surface(each)) for each in line.points(result.coords)]
    assert result.loss.tolist() == pytest.approx(expected, rel=1e-5)
    frozen = ll.barrier(surface, w, w.flip(0), points=5, batchnorm="frozen")
    assert abs(float(result) - float(frozen)) > 1e-3


def test_frozen_statistics_of_the_ends_are_not_dropped_in_silence():
    net = network()
    surface = ll.LossSurface(net, ll.Classification(), images())
    w = surface.layout.flatten(net)
    w0, w1 = (ll.Point(each, surface.refresh(each)) for each in (w, w.flip(0)))
    alone = ll.barrier(surface, w0.weights, w1.weights, points=3, batchnorm="frozen")
    own = float(surface(w1, batchnorm="frozen"))
    assert abs(float(alone.loss[-1]) - own) > 1e-3  # what it would give for them
    with pytest.raises(ll.ConfigError, match="no statistics for points between"):
        ll.barrier(surface, w0, w1.weights, points=3, batchnorm="frozen")
    result = ll.barrier(surface, w0, w1, points=3)  # statistics of every point
    assert float(result.loss[-1]) == pytest.approx(own, rel=1e-5)
    plain, _ = bowl()
    a, b = (ll.Point(end, {"shift": torch.zeros(1)}) for end in ends())
    assert ll.barrier(plain, a, b, batchnorm="frozen").height == 0  # no statistics, no doubt


def test_a_loss_that_is_not_a_number_is_no_barrier_of_zero():
    examples = [(torch.ones(2, 1), torch.zeros(2, 1))]
    surface = ll.LossSurface(nn.Linear(1, 1), ll.Regression(noise_variance=1.0), examples)
    result = ll.barrier(surface, torch.zeros(2), torch.tensor([3e38, 3e38]))
    assert math.isnan(float(result))


def test_what_has_no_barrier_is_reported():
    surface = double_well()
    with pytest.raises(ll.ConfigError, match="two ends are the same weights"):
        ll.barrier(surface, torch.ones(1), torch.ones(1))
    with pytest.raises(ll.ConfigError, match="points: expected a whole number of at least 3"):
        ll.barrier(surface, torch.ones(1), -torch.ones(1), points=2)
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.barrier(surface, torch.ones(2), torch.zeros(2))
    with pytest.raises(ll.NonFiniteError, match="NaN"):
        ll.barrier(surface, torch.ones(1), torch.tensor([math.nan]))
