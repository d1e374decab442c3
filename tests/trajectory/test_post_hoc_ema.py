"""Power-function averages against NumPy, and their snapshots."""

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from lowland.errors import ConfigError, StoreError
from lowland.trajectory.post_hoc_ema import WIDEST, power_exponent


def layout(p: int = 3) -> ll.ParamLayout:
    return ll.ParamLayout(nn.Linear(p, 1, bias=False).double())


def rows(n: int, p: int = 3) -> torch.Tensor:
    return torch.randn(n, p, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def collect(ema, weights):
    for row in weights:
        ema.update(row)
    return ema


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.2, WIDEST])
def test_the_exponent_gives_the_profile_its_width(width: float) -> None:
    exponent = power_exponent(width)
    # moments of (gamma + 1) tau^gamma on (0, 1), by quadrature
    tau = (np.arange(2_000_000) + 0.5) / 2_000_000
    density = (exponent + 1) * tau**exponent
    mean = (density * tau).mean()
    assert ((density * tau**2).mean() - mean**2) ** 0.5 == pytest.approx(width, rel=1e-5)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
def test_the_average_is_the_sum_with_the_profiles_weights(width: float) -> None:
    weights, power = rows(40), power_exponent(width) + 1
    ema = collect(ll.PowerEMA(layout(), width=width), weights)
    ends = np.arange(41.0) ** power
    expected = (np.diff(ends) / ends[-1]) @ weights.numpy()
    np.testing.assert_allclose(ema.mean, expected, rtol=1e-12)


def test_a_uniform_profile_is_swa() -> None:
    weights = rows(7)
    ema = collect(ll.PowerEMA(layout(), width=WIDEST), weights)
    torch.testing.assert_close(ema.mean, weights.mean(0))


def test_an_average_goes_to_disk_and_continues(tmp_path) -> None:
    weights = rows(20)
    ema = collect(ll.PowerEMA(layout(), width=0.1), weights[:10])
    back = ll.PowerEMA.load(ema.save(tmp_path / "ema.safetensors"))
    assert back.width == 0.1
    assert torch.equal(collect(back, weights[10:]).mean, collect(ema, weights[10:]).mean)


def test_snapshots_are_the_averages_of_their_steps(tmp_path) -> None:
    weights = rows(25)
    ema = collect(ll.PostHocEMA(tmp_path, layout(), interval=10), weights)
    assert ema.count == 25
    snapshots = list(ema.snapshots())
    assert [(w, t) for w, t, _ in snapshots] == [(w, t) for w in (0.05, 0.1) for t in (10, 20, 25)]
    for width, step, point in snapshots:
        direct = collect(ll.PowerEMA(layout(), width=width), weights[:step])
        assert torch.equal(point.weights, direct.mean)


def test_a_run_continues_from_its_last_checkpoint(tmp_path) -> None:
    weights = rows(40)
    ema = collect(ll.PostHocEMA(tmp_path / "a", layout(), interval=5), weights[:12])
    state = {
        k: {n: v.clone() if isinstance(v, torch.Tensor) else v for n, v in s.items()}
        for k, s in ema.state_dict().items()
    }
    collect(ema, weights[12:23])  # what a kill loses
    again = ll.PostHocEMA(tmp_path / "a", layout(), interval=5)
    assert again.count == 20  # snapshots alone
    again.load_state_dict(state)
    assert again.count == 12
    collect(again, weights[12:])
    straight = collect(ll.PostHocEMA(tmp_path / "b", layout(), interval=5), weights)
    for (w, t, a), (v, s, b) in zip(again.snapshots(), straight.snapshots(), strict=True):
        assert (w, t) == (v, s)
        assert torch.equal(a.weights, b.weights)


def test_a_collector_updates_it(tmp_path) -> None:
    model = nn.Linear(3, 1, bias=False)
    ema = ll.PostHocEMA(tmp_path, ll.ParamLayout(model), interval=2)
    collector = ll.Collector(ema, when=ll.Every(1))
    for _ in range(4):
        collector.step(model)
    assert len(list(ema.snapshots())) == 4
    collector.load_state_dict(collector.state_dict())


def test_invalid_arguments_are_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"width: expected a number above 0 .*, got 0.3"):
        ll.PowerEMA(layout(), width=0.3)
    with pytest.raises(ConfigError, match="widths: expected two different ones"):
        ll.PostHocEMA(tmp_path / "a", layout(), interval=1, widths=(0.1, 0.1))
    with pytest.raises(ConfigError, match="interval"):
        ll.PostHocEMA(tmp_path / "a", layout(), interval=0)
    ema = ll.PostHocEMA(tmp_path / "b", layout(), interval=1)
    with pytest.raises(StoreError, match=r"snapshots of other widths, width-0.05; name another"):
        ll.PostHocEMA(tmp_path / "b", layout(), interval=1, widths=(0.1, 0.2))
    with pytest.raises(ConfigError, match=r"the state has the widths 0.1, this collector has 0.05"):
        ema.load_state_dict({"0.1": {}})
