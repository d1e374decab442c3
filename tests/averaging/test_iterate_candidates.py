"""The averages of a branch against NumPy, and how often iterates are read."""

import numpy as np
import pytest
import torch

import lowland as ll
from lowland.averaging.iterate_candidates import (
    AverageOptions,
    iterate_candidates,
    tail_lengths,
)
from lowland.averaging.members import read_members
from lowland.averaging.validation import Validation
from lowland.errors import ConfigError
from tests.averaging import least_squares

N = 20


def branch(n: int = N):
    x, y, w = least_squares.problem(30, 4)
    generator = torch.Generator().manual_seed(1)
    rows = w + torch.randn(n, 4, generator=generator, dtype=torch.float64)
    surface = least_squares.surface(x, y)
    validation = Validation(surface, least_squares.batches(x, y))
    return x, y, rows, surface, validation


def test_tails_and_emas_are_those_of_numpy() -> None:
    x, y, rows, surface, validation = branch()
    options = AverageOptions(decays=(0.5, 0.9, 0.999), learned=False)
    candidates = iterate_candidates(read_members(surface, rows), validation, options)
    lengths = [1, 2, 3, 4, 7, 12, 20]
    names = ["last", *(f"tail {n}" for n in lengths[1:]), "EMA 0.5", "EMA 0.9"]
    assert list(candidates) == names  # 0.999 would be the mean of all
    weights = [np.arange(N) >= N - n for n in lengths]
    weights += [decay ** np.arange(N - 1, -1, -1) for decay in (0.5, 0.9)]
    for name, c in zip(names, weights, strict=True):
        candidate = candidates[name]
        mean = torch.from_numpy(np.average(rows.numpy(), axis=0, weights=c))
        np.testing.assert_allclose(candidate.nlls, least_squares.nlls(x, y, mean), rtol=1e-6)
        np.testing.assert_allclose(candidate.iterate_weights(), c / c.sum(), rtol=1e-12)
        torch.testing.assert_close(candidate.posterior().draw(0), mean)
    assert validation.evaluations == len(names)


def test_an_iterate_is_read_once(tmp_path, monkeypatch) -> None:
    *_, rows, surface, validation = branch(40)
    traj = ll.Trajectory.create(tmp_path / "run", surface.layout)
    for step, row in enumerate(rows):
        traj.append(row, step=step)
    reads = []
    read = ll.Trajectory.__getitem__
    monkeypatch.setattr(
        ll.Trajectory, "__getitem__", lambda self, i: reads.append(i) or read(self, i)
    )
    iterate_candidates(read_members(surface, traj), validation, AverageOptions())
    assert reads == list(reversed(range(40)))


def test_learned_weights_are_equal_within_a_block() -> None:
    *_, surface, validation = branch()
    x, y, rows, *_ = branch()
    rows[:8] += 3  # the first iterates are far away
    candidates = iterate_candidates(read_members(surface, rows), validation, AverageOptions())
    weights = candidates["learned"].iterate_weights()
    assert float(weights.sum()) == pytest.approx(1)
    blocks = [slice(0, 8), slice(8, 13), slice(13, 16)]  # between tails of 20, 12, 7 and 4
    assert all(float(weights[b].std()) < 1e-12 for b in blocks)
    assert float(weights[:8].sum()) < 0.05
    mean = weights @ rows
    torch.testing.assert_close(candidates["learned"].posterior().draw(0), mean)
    uniform = least_squares.nlls(x, y, rows.mean(0)).mean()
    assert least_squares.nlls(x, y, mean).mean() < uniform


def test_swag_has_the_scale_that_predicts_best() -> None:
    *_, rows, surface, validation = branch()
    options = AverageOptions(tails=2, swag_rank=4, scales=(0.0, 0.01, 1.0), samples=5, seed=2)
    candidates = iterate_candidates(read_members(surface, rows), validation, options)
    assert [name for name in candidates if "SWAG" in name] == ["SWAG 4", "SWAG 20"]
    candidate = candidates["SWAG 20"]
    swag = ll.SWAG(surface.layout, rank=4)
    for row in rows:
        swag.update(row)
    post = candidate.posterior()
    torch.testing.assert_close(post.mean, swag.mean)
    torch.testing.assert_close(post.deviations, swag.deviations)
    by_scale = {
        s: -ll.predict(surface, swag.posterior(scale=s), samples=5, seed=2).target_log_prob
        for s in (0.01, 1.0)
    }
    means = {s: float(nll.mean()) for s, nll in by_scale.items()}
    assert candidate.scale == post.scale == min(means, key=means.get)
    half = validation.in_first_half
    for here, other in ((half, ~half), (~half, half)):
        best = min(by_scale, key=lambda s: float(by_scale[s][other].mean()))
        torch.testing.assert_close(candidate.nlls[here], by_scale[best][here].double())


def test_lengths_are_those_of_the_iterates() -> None:
    assert tail_lengths(1000, 6) == [1, 3, 10, 32, 100, 316, 1000]
    assert tail_lengths(2, 6) == [1, 2]
    assert tail_lengths(50, 0) == [1]
    *_, rows, surface, validation = branch()
    candidates = iterate_candidates(read_members(surface, rows[:1]), validation, AverageOptions())
    assert list(candidates) == ["last"]


def test_invalid_options_are_named() -> None:
    with pytest.raises(ConfigError, match="decays: expected a number above 0 and below 1, got 1"):
        AverageOptions(decays=(0.5, 1.0))
    with pytest.raises(ConfigError, match="swag_rank: expected 0, for no SWAG, or at least 2"):
        AverageOptions(swag_rank=1)
    with pytest.raises(ConfigError, match="scales: expected at least one number above 0"):
        AverageOptions(swag_rank=4, scales=(0.0,))
