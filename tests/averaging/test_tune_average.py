"""The chosen average where the best one is known: noise about an optimum, a drift, convergence."""

import numpy as np
import pytest
import torch
from scipy import stats

import lowland as ll
from lowland.errors import ConfigError, DataError, LayoutError, NonFiniteError
from tests import models
from tests.averaging import least_squares


def problem(n: int = 32, *, far: int = 0):
    """Noise about the optimum: the first `far` iterates have a shift."""
    x, y, w = least_squares.problem(200, 6)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    rows = w + noise
    rows[:far] += 5
    return x, y, rows, least_squares.surface(x, y), least_squares.batches(x, y)


def test_noise_about_an_optimum_is_averaged_over_all_iterates() -> None:
    x, y, rows, surface, validation = problem()
    reports: list[tuple[int, int | None]] = []
    tuned = ll.tune_average(
        surface, rows, validation, learned=False, progress=lambda *pair: reports.append(pair)
    )
    assert reports == [(i + 1, None) for i in range(round(tuned.evaluations))]
    assert tuned.best == "tail 32"
    torch.testing.assert_close(tuned.point.weights, rows.mean(0))
    last, mean = least_squares.nlls(x, y, rows[-1]), least_squares.nlls(x, y, rows.mean(0))
    t = stats.ttest_rel(last, mean)
    assert tuned.gain == pytest.approx((last - mean).mean())
    assert tuned.gain / tuned.gain_se == pytest.approx(t.statistic)
    low, high = tuned.interval
    assert 0 < low < tuned.gain < high
    assert f"of tail 32 is {tuned.gain:.4f} below that of the last iterate" in tuned.message
    assert str(tuned) == f"{tuned.table}\n{tuned.message}"
    # the expected excess of the mean of L iterates is 1 / L of that of one
    excess = {
        name: float(nll) - least_squares.nlls(x, y, torch.linalg.lstsq(x, y).solution[:, 0]).mean()
        for name, nll in zip(tuned.table.candidate, tuned.table.nll, strict=True)
    }
    assert 0.3 < 32 * excess["tail 32"] / excess["last"] < 3


def test_iterates_of_a_drift_are_left_out() -> None:
    x, y, rows, surface, validation = problem(far=16)
    tuned = ll.tune_average(surface, rows, validation, learned=False, decays=())
    tails = {
        n: least_squares.nlls(x, y, rows[-n:].mean(0)).mean() for n in (1, 2, 3, 6, 10, 18, 32)
    }
    assert tuned.best == f"tail {min(tails, key=tails.get)}" == "tail 10"
    assert tuned.iterate_weights.tolist() == [0.0] * 22 + [0.1] * 10
    # averaging everything is a broken twin
    assert tails[32] > tails[1]


def test_iterates_that_converge_are_not_averaged() -> None:
    x, y, w = least_squares.problem(50, 6, noise=0.0)
    rows = w + 0.8 ** torch.arange(32)[:, None] * torch.ones(6)
    surface = least_squares.surface(x, y)
    tuned = ll.tune_average(surface, rows, least_squares.batches(x, y))
    assert tuned.best == "last"
    assert (tuned.gain, tuned.gain_se) == (0, 0)
    assert torch.equal(tuned.point.weights, rows[-1])
    assert tuned.message.endswith("lower by more than one paired standard error.")


def test_branches_compete() -> None:
    x, y, rows, surface, validation = problem()
    branches = {"lr=1": rows, "lr=0.1": rows[-1] + 0.2 * (rows - rows.mean(0))}
    tuned = ll.tune_average(surface, branches, validation)
    assert tuned.branch == "lr=1"
    assert tuned.best.startswith("lr=1: ")
    assert tuned.selection.default == "lr=1: last"
    options = {"learned": False, "default": "lr=0.1: last"}
    tuned = ll.tune_average(surface, branches, validation, **options)
    assert tuned.branch == "lr=1"
    last = least_squares.nlls(x, y, branches["lr=0.1"][-1])
    best = least_squares.nlls(x, y, tuned.point.weights)
    assert tuned.gain == pytest.approx((last - best).mean())


def test_a_posterior_of_the_caller_can_be_selected() -> None:
    x, y, rows, surface, validation = problem(3)
    optimum = torch.linalg.lstsq(x, y).solution[:, 0]
    own = {"optimum": optimum, "wide": ll.Gaussian(optimum, torch.ones(6).double())}
    tuned = ll.tune_average(surface, rows, validation, candidates=own, samples=4)
    assert (tuned.best, tuned.iterate_weights, tuned.branch) == ("optimum", None, None)
    assert torch.equal(tuned.posterior().draw(0), optimum)
    tuned = ll.tune_average(surface, rows, validation, candidates=own, default="optimum")
    assert tuned.best == "optimum"
    assert tuned.gain > 0  # of the last iterate, whatever the default
    with pytest.raises(ConfigError, match="'last' is one of the averages"):
        ll.tune_average(surface, rows, validation, candidates={"last": optimum})


def test_swag_is_selected_where_noise_is_underestimated() -> None:
    x, y, w = least_squares.problem(200, 6, noise=3.0)
    generator = torch.Generator().manual_seed(5)
    rows = w + torch.randn(32, 6, generator=generator, dtype=torch.float64)
    surface = least_squares.surface(x, y)
    options = {"tails": 1, "learned": False, "decays": (), "samples": 20}
    tuned = ll.tune_average(surface, rows, least_squares.batches(x, y), swag_rank=5, **options)
    assert tuned.best == "SWAG 32"
    assert tuned.scale > 0
    nll = ll.predict(surface, tuned, least_squares.batches(x, y), samples=20).metrics()["nll"]
    assert nll < float(tuned.table.nll[1]) < float(tuned.table.nll[0])
    torch.testing.assert_close(tuned.point.weights, rows.mean(0))
    # two networks, and six draws' worth of scales
    assert tuned.evaluations == 2 + 5 * 20


def test_checkpoints_and_trajectories_give_the_same_choice(tmp_path) -> None:
    torch.manual_seed(0)
    data, validation = models.images((8, 8)), models.images((6, 6))
    nets = [models.conv_bn() for _ in range(4)]
    surface = ll.LossSurface(nets[0], ll.Classification(), data)
    traj = ll.Trajectory.create(tmp_path / "run", surface.layout)
    files = []
    for step, net in enumerate(nets):
        traj.append(net, step=step)
        files.append(tmp_path / f"step-{step}.pt")
        torch.save(net.state_dict(), files[-1])
    options = {"batchnorm": "refresh", "learned": False}
    results = [ll.tune_average(surface, i, validation, **options) for i in (traj, files, nets)]
    for result in results[1:]:
        torch.testing.assert_close(result.table.nll, results[0].table.nll)
        assert result.best == results[0].best
        torch.testing.assert_close(result.point.weights, results[0].point.weights)
    nll = surface.evaluate(results[0], validation).nll[0]
    assert nll == results[0].selection.nll[results[0].selection.names.index(results[0].best)]


def test_invalid_arguments_are_named(tmp_path) -> None:
    _, _, rows, surface, validation = problem(4)
    with pytest.raises(ConfigError, match=r"default: expected one of last, tail 2, .*, got 'SWA'"):
        ll.tune_average(surface, rows, validation, default="SWA")
    with pytest.raises(ConfigError, match="at least one branch, got none"):
        ll.tune_average(surface, {}, validation)
    with pytest.raises(ConfigError, match="at least one network, got none"):
        ll.tune_average(surface, [], validation)
    with pytest.raises(LayoutError, match="member 3: "):
        ll.tune_average(surface, [*rows[:3], torch.zeros(7)], validation)
    rows[1, 2] = np.inf
    with pytest.raises(NonFiniteError, match="member 1: "):
        ll.tune_average(surface, rows, validation)
    with pytest.raises(DataError, match="at least two validation items, got 1"):
        ll.tune_average(surface, rows[:1], [(b[0][:1], b[1][:1]) for b in validation[:1]])
    with pytest.raises(DataError, match="empty"):
        ll.tune_average(surface, rows[:1], [])
