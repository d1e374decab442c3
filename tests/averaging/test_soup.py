"""Soups against brute force over subsets, against scipy's optimum, and on many networks."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from lowland.errors import ConfigError, DataError, LayoutError, NonFiniteError
from tests import models
from tests.averaging import least_squares
from tests.averaging.test_learned_weights import optimum


def orthogonal(*lengths: float):
    """Members a_m e_m about the optimum at 0: L = const + |w|² / 2."""
    p = len(lengths)
    x = p**0.5 * torch.eye(p, dtype=torch.float64)
    y = torch.zeros(p, 1, dtype=torch.float64)
    return least_squares.surface(x, y), torch.diag(torch.tensor(lengths, dtype=torch.float64))


def test_the_greedy_soup_is_the_best_of_all_subsets() -> None:
    surface, rows = orthogonal(6.0, 1.2, 1.0, 1.5)
    result = ll.soup(rows, surface, surface.data, kind="greedy")
    subsets = [list(s) for k in range(1, 5) for s in combinations(range(4), k)]
    losses = [float(rows[s].mean(0).square().sum()) / 2 for s in subsets]
    best = subsets[int(np.argmin(losses))]
    assert result.mixing_weights.nonzero().flatten().tolist() == best == [1, 2, 3]
    assert result.table.nll[-1] == pytest.approx(min(losses) + least_squares.LOG)
    torch.testing.assert_close(result.point.weights, rows[best].mean(0))
    assert result.evaluations == 8  # each member alone, then in the average of those before it
    assert result.selection.names == ["0", "1", "2", "3", "greedy soup"]
    assert result.selection.default == "2"  # the best member


def test_a_member_that_does_not_lower_the_nll_is_left_out() -> None:
    surface, rows = orthogonal(1.0, 1.0, 1.0)
    rows[2] = rows[1]  # the same once more: the average would move away from the first
    result = ll.soup(rows, surface, surface.data, kind="greedy")
    assert result.mixing_weights.tolist() == [0.5, 0.5, 0.0]


def test_the_uniform_soup_is_the_mean() -> None:
    x, y, w = least_squares.problem(30, 4)
    rows = w + torch.eye(4, dtype=torch.float64)
    surface = least_squares.surface(x, y)
    result = ll.soup({"a": rows[0], "b": rows[1]}, surface, least_squares.batches(x, y))
    torch.testing.assert_close(result.point.weights, rows[:2].mean(0))
    rows_of_table = list(result.table.rows())
    assert [row["candidate"] for row in rows_of_table] == ["a", "b", "uniform soup"]
    assert [row["weight"] for row in rows_of_table] == [0.5, 0.5, 1.0]
    expected = [least_squares.nlls(x, y, v) for v in (rows[0], rows[1], rows[:2].mean(0))]
    np.testing.assert_allclose(result.table.nll, [e.mean() for e in expected])
    errors = [e.std(ddof=1) / 30**0.5 for e in expected]
    np.testing.assert_allclose(result.table.nll_se, errors)
    assert surface.evaluate(result).nll[0] == pytest.approx(expected[2].mean())
    assert str(result) == f"{result.table}\n{result.selection.message}"


def test_learned_weights_are_those_of_scipy_where_they_are_better_on_held_out_examples() -> None:
    x, y, w = least_squares.problem(60, 5, noise=0.3)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    rows = w + torch.tensor([[0.1], [1.0], [2.0], [2.0]]) * noise
    surface = least_squares.surface(x, y)
    result = ll.soup(rows, surface, least_squares.batches(x, y), kind="learned", steps=60)
    assert result.kind == "learned"
    nll = least_squares.nlls(x, y, result.point.weights).mean()
    assert nll == pytest.approx(optimum(x, y, rows), abs=1e-5)
    # the soup's own NLL is that on held-out examples, which is higher
    assert float(result.table.nll[-1]) > nll
    assert result.gradients > 2


def test_learned_weights_that_are_no_better_elsewhere_are_uniform() -> None:
    # the mean of the members is the optimum: what is learned is noise
    x, y, w = least_squares.problem(24, 8, noise=3.0)
    generator = torch.Generator().manual_seed(0)
    noise = 0.5 * torch.randn(4, 8, generator=generator, dtype=torch.float64)
    rows = torch.cat([w + noise, w - noise])
    surface = least_squares.surface(x, y)
    result = ll.soup(rows, surface, least_squares.batches(x, y), kind="learned")
    assert result.kind == "uniform"
    assert result.mixing_weights.tolist() == [0.125] * 8
    torch.testing.assert_close(result.point.weights, w)
    assert result.selection.names[-1] == "uniform soup"


def test_batchnorm_statistics_are_those_of_the_average() -> None:
    torch.manual_seed(0)
    data, validation = models.images((8, 8)), models.images((6, 6))
    nets = [models.conv_bn() for _ in range(3)]
    surface = ll.LossSurface(nets[0], ll.Classification(), data)
    mean = torch.stack([surface.layout.flatten(net) for net in nets]).mean(0)
    frozen = float(surface.evaluate(mean, validation, batchnorm="frozen").nll)
    for kind in ("greedy", "learned", "uniform"):
        result = ll.soup(nets, surface, validation, kind=kind, steps=2)
        nll = float(surface.evaluate(result, validation).nll)
        if result.kind != "learned":
            assert float(result.table.nll[-1]) == pytest.approx(nll, rel=1e-5)
        if result.kind == "uniform":
            assert nll == pytest.approx(float(surface.evaluate(mean, validation).nll), rel=1e-5)
            assert abs(nll - frozen) > 1e-3  # a broken twin
    with pytest.raises(DataError, match="statistics would come from the examples"):
        ll.soup(nets, surface, data)


def test_frozen_parameters_and_a_part_of_the_weights() -> None:
    torch.manual_seed(0)
    data, validation = models.blobs(), models.blobs((6, 5))
    net = models.frozen()
    surface = ll.LossSurface(net, ll.Classification(), data)
    w = surface.layout.flatten(net)
    result = ll.soup([w, models.nearby(w)], surface, validation, kind="learned", steps=3)
    assert result.point.weights.shape == w.shape
    part = ll.LossSurface(models.mlp(), ll.Classification(), data, where="bias")
    nets = [models.mlp(), models.mlp()]
    result = ll.soup(nets, part, data)
    expected = (part.layout.flatten(nets[0]) + part.layout.flatten(nets[1])) / 2
    torch.testing.assert_close(result.point.weights, expected)


def test_a_diverged_member_is_left_out_of_the_greedy_soup() -> None:
    surface, rows = orthogonal(1.0, 1.2, 1e200)
    result = ll.soup(rows, surface, surface.data, kind="greedy")
    assert result.mixing_weights.tolist() == [0.5, 0.5, 0.0]
    assert result.table.nll[2] == torch.inf
    assert ll.soup(rows, surface, surface.data).selection.best == "0"  # the best member


def test_progress_counts_passes_over_the_examples() -> None:
    surface, rows = orthogonal(6.0, 1.2, 1.0)
    for kind, total in (("greedy", 6), ("learned", None), ("uniform", 4)):
        reports: list[tuple[int, int | None]] = []
        report = lambda *pair, to=reports: to.append(pair)  # noqa: E731
        result = ll.soup(rows, surface, surface.data, kind=kind, progress=report)
        passes = round(result.evaluations + result.gradients)
        assert reports[-1] == (total or passes, total)
        assert reports == sorted(reports, key=lambda pair: pair[0])
        assert len(reports) >= len(rows) + 1


def test_invalid_arguments_are_named() -> None:
    surface, rows = orthogonal(1.0, 1.2)
    with pytest.raises(ConfigError, match="members: 'uniform soup' is the name of the result"):
        ll.soup({"uniform soup": rows[0], "b": rows[1]}, surface, surface.data)
    with pytest.raises(ConfigError, match="kind: expected one of uniform, greedy, learned"):
        ll.soup(rows, surface, surface.data, kind="mean")
    with pytest.raises(ConfigError, match="steps: expected a whole number of at least 1"):
        ll.soup(rows, surface, surface.data, steps=0)
    with pytest.raises(ConfigError, match="at least one network, got none"):
        ll.soup([], surface, surface.data)
    with pytest.raises(LayoutError, match="member 1: "):
        ll.soup([rows[0], torch.zeros(3)], surface, surface.data)
    with pytest.raises(NonFiniteError, match="member 1: "):
        ll.soup([rows[0], rows[1] * torch.nan], surface, surface.data)
    with pytest.raises(DataError, match="at least two validation items, got 1"):
        ll.soup(rows, surface, [(torch.eye(2).double()[:1], torch.zeros(1, 1).double())])
    with pytest.raises(DataError, match="empty"):
        ll.soup(rows, surface, [])
    with pytest.raises(NonFiniteError, match="no candidate has a finite validation NLL"):
        ll.soup(1e200 * rows, surface, surface.data)


def test_the_mean_of_models_is_that_of_their_state_dicts() -> None:
    torch.manual_seed(0)
    data = models.targets()
    nets = [nn.Linear(4, 2) for _ in range(3)]
    surface = ll.LossSurface(nets[0], ll.Regression(), data)
    result = ll.soup(nets, surface, data)
    weight = torch.stack([net.weight.detach() for net in nets]).mean(0)
    torch.testing.assert_close(surface.layout.unflatten(result.point.weights)["weight"], weight)
