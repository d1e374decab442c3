"""Moments of long trajectories against float64: an iterate's share is below float32's last bit."""

import numpy as np
import pytest
import torch

from lowland import EMA, SWA, SWAG, FrequentDirections
from lowland.tensor_files import same_tree
from tests.trajectory.test_moments import collected, flat_layout, random_walk

# a mean of weights near 1 moves by half of it an iterate, below half of float32's last bit there,
# 6e-8: a mean that is not compensated stands still from the start, whatever the number of iterates
STEP = 1e-7


def drift(n, step=STEP):
    """Weights that rise or fall slowly, between different powers of two, (n, 4) in float32."""
    start, sign = torch.tensor([[1.0, 1.3, -0.7, 1.9], [1, -1, 1, 1]], dtype=torch.float64)
    return (start * (1 + step * sign * torch.arange(n)[:, None])).float()


def absorbed(moments, iterates):
    """As `update`, without its checks, which take as long as four numbers' moments."""
    for w in iterates:
        moments.count += 1
        moments._absorb([w])
    return moments


class Plain:
    """What an update loses to rounding is lost."""

    def _residual_for(self, share):
        return None


def broken(kind):
    return type(f"Plain{kind.__name__}", (Plain, kind), {})


def check_drift(kind, n=6000, **settings):
    iterates = drift(n)
    moments = absorbed(kind(flat_layout(4), **settings), iterates)
    w = iterates.double().numpy()
    assert np.abs((moments.mean.numpy() - w.mean(0)) / w.std(0)).max() < 2e-3
    if kind is SWAG:
        assert moments.variance.numpy() == pytest.approx(w.var(0), rel=1e-3)
    if kind is FrequentDirections:  # one dimension: nothing is lost
        scatter = n * w.var(0).sum()
        assert float(moments.sketch.square().sum()) == pytest.approx(scatter, rel=1e-3)


KINDS = [(SWA, {}), (SWAG, {"rank": 2}), (FrequentDirections, {"rank": 2})]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_a_slow_drift_is_followed(kind, settings):
    check_drift(kind, **settings)


def test_a_slow_drift_of_20_000_iterates():
    check_drift(SWAG, n=20_000, rank=0)


@pytest.mark.parametrize(("kind", "settings"), KINDS[:2])
def test_the_check_of_drift_fails_plain_means(kind, settings):
    with pytest.raises(AssertionError):
        check_drift(broken(kind), **settings)


@pytest.mark.parametrize(
    ("decay", "step"),
    [(0.999, STEP), (1 - 1e-5, STEP), (1 - 1e-7, 10 * STEP)],  # so that the mean moves by 15 units
)
def test_an_ema_whose_decay_goes_to_one(decay, step):
    iterates = drift(6000, step)
    expected = first = iterates[0].double().numpy()
    for w in iterates[1:].double().numpy():
        expected = expected + (1 - decay) * (w - expected)

    def error(kind):
        ema = absorbed(kind(flat_layout(4), decay=decay), iterates)
        return np.abs(ema.mean.numpy() - expected).max() / np.abs(expected - first).min()

    half = 2**-24 * 2 / np.abs(expected - first).min()  # a unit in the last place, at most
    assert error(EMA) < half + 1e-3
    if decay < 1 - 1e-6:  # else the mean is within a unit of where it began
        assert error(broken(EMA)) > 10 * (half + 1e-3)


def test_after_a_million_iterates():
    """On from float64 moments of a million: a share of a millionth is still taken."""
    layout, many, more = flat_layout(1), 1_000_000, 8000
    swag = SWAG(layout, rank=0)
    mean, variance = np.float64(1.0), np.float64(1e-4)
    state = swag.state_dict() | {"count": many}
    swag.load_state_dict(
        state | {"_mean": torch.tensor([1.0]), "_variance": torch.tensor([variance])}
    )
    iterates = 1.02 + 0.01 * random_walk(more, 1, seed=3)
    absorbed(swag, iterates)
    for n, w in enumerate(iterates[:, 0].double().numpy(), start=many + 1):
        before, mean = mean, mean + (w - mean) / n
        variance += ((w - before) * (w - mean) - variance) / n
    assert float(swag.mean) - 1 == pytest.approx(mean - 1, rel=1e-3)
    assert float(swag.variance) - 1e-4 == pytest.approx(variance - 1e-4, rel=0.02)


@pytest.mark.parametrize(("kind", "settings"), [*KINDS, (EMA, {"decay": 0.999})])
def test_the_rounding_residual_is_part_of_the_state(kind, settings, monkeypatch, tmp_path):
    monkeypatch.setattr("lowland.trajectory.moments._SHARE", 1 / 3)
    iterates = random_walk(12, 6, centre=1.0, sd=1e-6)
    straight = collected(kind, iterates, **settings)
    assert bool(straight._residual.any())
    half = collected(kind, iterates[:8], **settings)
    loaded = kind.load(half.save(tmp_path / "moments.safetensors"))
    early = collected(kind, iterates[:2], **settings)  # has none yet, but for an EMA
    early.load_state_dict(half.state_dict())
    late = collected(kind, iterates, **settings)
    late.load_state_dict(half.state_dict())
    for again in (loaded, early, late):
        assert same_tree(again.state_dict(), half.state_dict())
        for w in iterates[8:]:
            again.update(w)
        assert same_tree(again.state_dict(), straight.state_dict())


def test_a_networks_moments_have_their_part_of_it(monkeypatch):
    monkeypatch.setattr("lowland.trajectory.moments._SHARE", 1 / 3)
    iterates = random_walk(12, 6, centre=1.0, sd=1e-6)
    parts = collected(SWAG, iterates, rank=2).split(flat_layout(3))
    for part, own in zip(parts, (iterates[:, :3], iterates[:, 3:]), strict=True):
        assert same_tree(part.state_dict(), collected(SWAG, own.contiguous(), rank=2).state_dict())


def test_where_nothing_stalls():
    """Each of a thousand iterates counts once, before and after rounding is made up for."""
    iterates = random_walk(1000, 50, centre=1.0, sd=0.3)
    swag = collected(SWAG, iterates, rank=5)
    w = iterates.double().numpy()
    assert swag.mean.numpy() == pytest.approx(w.mean(0), abs=1e-7)
    assert swag.variance.numpy() == pytest.approx(w.var(0), rel=1e-5)
    means = np.cumsum(w, 0) / np.arange(1, len(w) + 1)[:, None]
    assert swag.deviations.numpy() == pytest.approx((w - means)[-5:], abs=3e-7)  # 200 full rounds
