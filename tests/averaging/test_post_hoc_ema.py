"""Profiles against numerical integration, and reconstructed averages against direct ones."""

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import nn

import lowland as ll
from lowland.averaging.post_hoc_ema import profile_products, profile_weights
from lowland.errors import ConfigError, LowlandError
from lowland.trajectory.post_hoc_ema import power_exponent


def test_inner_products_are_those_of_numerical_integration() -> None:
    profiles = [(10.0, power_exponent(0.05)), (25.0, power_exponent(0.1)), (25.0, 0.5), (3.0, 0.0)]
    steps = torch.tensor([t for t, _ in profiles], dtype=torch.float64)
    exponents = torch.tensor([g for _, g in profiles], dtype=torch.float64)
    products = profile_products(steps, exponents, steps, exponents)
    for i, (t, g) in enumerate(profiles):
        for j, (s, h) in enumerate(profiles):
            value, _ = integrate.quad(
                lambda tau, t=t, g=g, s=s, h=h: (
                    (g + 1) * tau**g / t ** (g + 1) * (h + 1) * tau**h / s ** (h + 1)
                ),
                0,
                min(t, s),
                epsabs=1e-12,
            )
            assert float(products[i, j]) == pytest.approx(value, rel=1e-8)


def test_a_kept_profile_is_its_own_combination() -> None:
    exponent = power_exponent(0.1)
    steps = torch.tensor([10, 20, 10, 20])
    exponents = torch.tensor([power_exponent(0.05)] * 2 + [exponent] * 2, dtype=torch.float64)
    weights, error = profile_weights(steps, exponents, 20, exponent)
    torch.testing.assert_close(weights, torch.tensor([0.0, 0, 0, 1]).double(), atol=1e-6, rtol=0)
    assert error < 1e-6


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A random walk of 2,000 steps, its post-hoc EMA with 20 snapshots, and the direct averages."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(2000, 50, generator=generator, dtype=torch.float64)
    rows = 5 + steps.cumsum(0)
    layout = ll.ParamLayout(nn.Linear(50, 1, bias=False).double())
    ema = ll.PostHocEMA(tmp_path_factory.mktemp("ema"), layout, interval=100)
    for row in rows:
        ema.update(row)

    def direct(width: float, n: int = 2000) -> torch.Tensor:
        ends = np.arange(n + 1.0) ** (power_exponent(width) + 1)
        return torch.from_numpy(np.diff(ends) / ends[-1]) @ rows[:n]

    return ema, direct, rows


@pytest.mark.parametrize(("width", "most"), [(0.05, 1e-6), (0.07, 1e-3), (0.15, 1e-3), (0.2, 1e-2)])
def test_another_width_is_the_average_kept_directly(walk, width: float, most: float) -> None:
    ema, direct, rows = walk
    average = ll.post_hoc_ema(ema, width=width).weights
    scale = (direct(0.05) - direct(0.1)).norm()  # of the differences between widths
    assert float((average - direct(width)).norm() / scale) < most
    assert float((rows[-1] - direct(width)).norm() / scale) > 1  # the last iterate: a broken twin


def test_an_earlier_step_has_its_own_average(walk) -> None:
    ema, direct, _ = walk
    average = ll.post_hoc_ema(ema, width=0.07, step=1000).weights
    assert float((average - direct(0.07, 1000)).norm() / direct(0.07, 1000).norm()) < 0.01


def test_a_narrower_width_warns_with_its_error(walk) -> None:
    ema, *_ = walk
    with pytest.warns(UserWarning, match=r"width 0.01: its profile differs .* by \d+%; take a"):
        ll.post_hoc_ema(ema, width=0.01)


def test_constant_weights_stay_and_buffers_are_the_last(tmp_path) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    ema = ll.PostHocEMA(tmp_path, ll.ParamLayout(net), interval=4)
    for _ in range(10):
        net(torch.randn(5, 2))
        ema.update(net)
    point = ll.post_hoc_ema(ema, width=0.08)
    torch.testing.assert_close(point.weights, ema.layout.flatten(net))
    assert torch.equal(point.buffers["1.running_mean"], net[1].running_mean)
    assert point.buffers["1.num_batches_tracked"] == 10


def test_invalid_arguments_are_named(walk, tmp_path) -> None:
    ema, *_ = walk
    with pytest.raises(ConfigError, match="width: expected a number above 0"):
        ll.post_hoc_ema(ema, width=0.5)
    with pytest.raises(ConfigError, match="step: expected a whole number from 1 to 2,000"):
        ll.post_hoc_ema(ema, width=0.1, step=3000)
    with pytest.raises(LowlandError, match="no snapshot up to step 50"):
        ll.post_hoc_ema(ema, width=0.1, step=50)
