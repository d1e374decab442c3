"""The paired rule against scipy, against the textbook's clustered error, and at its border."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lowland.averaging import mean_and_error, select
from lowland.errors import ConfigError, DataError, NonFiniteError


def sample(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=generator, dtype=torch.float64) + 2


def test_the_paired_error_is_that_of_the_paired_t_test() -> None:
    default = sample(50)
    other = default - 0.1 + 0.3 * sample(50, seed=1)
    record = select({"SGD": default, "SWA": other}, default="SGD")
    t = stats.ttest_rel(other.numpy(), default.numpy())
    difference, error = float(record.difference[1]), float(record.difference_se[1])
    assert difference / error == pytest.approx(t.statistic, rel=1e-12)
    assert difference == pytest.approx(float(np.mean(other.numpy() - default.numpy())))
    for i, values in enumerate((default, other)):
        assert float(record.nll[i]) == pytest.approx(values.numpy().mean())
        assert float(record.nll_se[i]) == pytest.approx(stats.sem(values.numpy()))
    # unpaired errors are a broken twin
    assert error < 0.6 * math.hypot(*record.nll_se.tolist())


def test_the_default_stays_within_one_error_and_goes_beyond_it() -> None:
    noise = torch.tensor([1.0, -1.0] * 8)  # mean 0
    _, error = mean_and_error(noise)
    default = sample(16)
    for share, best in ((0.99, "SGD"), (1.01, "SWA")):
        nlls = {"SGD": default, "SWA": default + noise - share * error}
        assert select(nlls, default="SGD").best == best
    assert select(nlls, default="SGD", standard_errors=2).best == "SGD"
    assert select(nlls, default="SWA").best == "SWA"


def test_the_lowest_mean_among_those_that_beat_the_default_is_selected() -> None:
    default, noise = sample(16), torch.tensor([1.0, -1.0] * 8)
    nlls = {
        "SGD": default,
        "sure": default - 0.1 + 0.01 * noise,
        "surer": default - 0.2 + 0.01 * noise,
        "lucky": default - 0.3 + 4 * noise,  # the lowest mean, within its error
    }
    assert select(nlls, default="SGD").best == "surer"


def test_equal_candidates_leave_the_default() -> None:
    default = sample(10)
    record = select({"SWA": default.clone(), "SGD": default}, default="SGD")
    assert record.best == "SGD"
    assert record.difference.tolist() == record.difference_se.tolist() == [0.0, 0.0]


def test_errors_are_clustered_by_group() -> None:
    values = sample(12)
    # each value three times is no more information
    assert mean_and_error(values.repeat_interleave(3), torch.arange(12).repeat_interleave(3)) == (
        pytest.approx(mean_and_error(values))
    )
    # groups of different sizes, by the formula
    labels = ["a"] * 2 + ["b"] * 7 + ["c"] * 3
    residual = (values - values.mean()).numpy()
    sums = np.array([residual[:2].sum(), residual[2:9].sum(), residual[9:].sum()])
    by_hand = math.sqrt(3 / 2 * (sums**2).sum()) / 12
    assert mean_and_error(values, labels)[1] == pytest.approx(by_hand, rel=1e-12)
    record = select({"SGD": values, "SWA": values - 1}, default="SGD", groups=labels)
    assert (record.items, record.groups) == (12, 3)


def test_a_candidate_that_is_not_finite_is_never_selected() -> None:
    fine = sample(5)
    broken = fine.clone() - 100
    broken[2] = math.nan
    record = select({"SGD": fine, "SWA": broken}, default="SGD")
    assert record.best == "SGD"
    assert record.nll[1] == record.difference[1] == math.inf
    record = select({"SGD": fine, "SWA": broken}, default="SWA")  # any is better than this one
    assert record.best == "SGD"
    assert record.difference[0] == -math.inf
    with pytest.raises(NonFiniteError, match=r"no candidate has a finite .*: SWA, EMA; look at"):
        select({"SWA": broken, "EMA": broken}, default="SWA")


def test_the_record_goes_to_disk_and_comes_back(tmp_path) -> None:
    record = select({"SGD": sample(5), "SWA": sample(5) - 1}, default="SGD")
    for ending in (".json", ".npz"):
        back = type(record).load(record.save(tmp_path / f"selection{ending}"))
        assert str(back) == str(record)


def test_invalid_arguments_are_named() -> None:
    two = torch.tensor([1.0, 2.0])
    with pytest.raises(ConfigError, match="at least one candidate"):
        select({}, default="SGD")
    with pytest.raises(ConfigError, match="default: expected one of SWA, got 'SGD'"):
        select({"SWA": two}, default="SGD")
    with pytest.raises(DataError, match=r"same validation items.*'SGD': 2, 'SWA': 1"):
        select({"SGD": two, "SWA": two[:1]}, default="SGD")
    with pytest.raises(DataError, match="at least two validation items, got 1"):
        select({"SGD": two[:1]}, default="SGD")
    with pytest.raises(DataError, match=r"SGD: expected .* \(n,\), got \(1, 2\)"):
        select({"SGD": two[None]}, default="SGD")
    with pytest.raises(DataError, match="groups: expected 2 labels, one for each item, got 3"):
        select({"SGD": two}, default="SGD", groups=[0, 1, 2])
    with pytest.raises(DataError, match="groups: expected at least two groups, got one"):
        select({"SGD": two}, default="SGD", groups=["a", "a"])
