"""Figures of many weight vectors, by every strategy, against the surface and against predict."""

import math
import warnings

import pytest
import torch
from torch import nn

import lowland as ll
from tests.evaluate.test_predict import Poisson, dense, scattered, small
from tests.models import CASES, TiedLM, blobs, conv_bn, every_case, images, mlp, targets, tokens

STRATEGIES = ("points", "batches", "vmap")


def close(a, b, tolerance=1e-5):
    assert a.columns.keys() == b.columns.keys()
    for name in a.columns:
        torch.testing.assert_close(
            a.columns[name],
            b.columns[name],
            rtol=tolerance,
            atol=tolerance,
            equal_nan=True,
            msg=name,
        )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equals_the_surface_and_a_predictive_of_one(strategy):
    _, surface = small()
    weights = scattered(surface.layout, 7)
    table = surface.evaluate(weights, strategy=strategy, chunk=3)
    assert len(table) == 7
    for i, w in enumerate(weights):
        assert table.loss[i].item() == pytest.approx(float(surface(w)), rel=1e-5)
        result = ll.predict(surface, w).metrics()
        for name in ("nll", "ece", "brier", "accuracy"):
            assert table.columns[name][i].item() == pytest.approx(result[name], abs=1e-5)
    torch.testing.assert_close(table.error, 1 - table.accuracy)
    assert table.loss.dtype == torch.float64


@every_case
def test_every_strategy_gives_equal_values(case):
    model = case.model()
    surface = case.surface(model)
    w = surface.layout.flatten(model)
    weights = torch.stack([w * s for s in (1.0, 0.8, 1.2, 0.5, 1.5)])
    expected = torch.stack([surface(each) for each in weights])
    # bfloat16 is rounded at other places in other operations
    tolerance = 2e-2 if case.name == "mixed" else 1e-5
    tables = {}
    for strategy in STRATEGIES:
        with warnings.catch_warnings():
            if case.unbatched:  # torch warns that it is slow
                warnings.filterwarnings("ignore", ".*batching rule")
            if strategy == "vmap" and not case.maps:
                with pytest.raises(ll.ConfigError, match="many weights at once"):
                    surface.evaluate(weights, strategy=strategy, chunk=2)
                continue
            tables[strategy] = surface.evaluate(weights, strategy=strategy, chunk=2)
        torch.testing.assert_close(tables[strategy].loss, expected, rtol=tolerance, atol=tolerance)
    tables["planned"] = surface.evaluate(weights)  # and nobody hears of what it tried
    for table in tables.values():
        close(table, tables["points"], tolerance)


TASKS = {
    "regression": lambda: ll.LossSurface(
        nn.Linear(4, 2), ll.Regression(target_mean=2.0, target_std=3.0), targets()
    ),
    "dense": lambda: ll.LossSurface(nn.Conv2d(2, 4, 3, padding=1), ll.Classification(), dense()),
    "language": lambda: ll.LossSurface(TiedLM(), ll.LanguageModeling(), tokens()),
    "custom": lambda: ll.LossSurface(
        nn.Linear(6, 1), Poisson(), [(x, y.float()) for x, y in blobs()]
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_other_likelihoods(name):
    surface = TASKS[name]()
    weights = scattered(surface.layout, 5, 0.3)
    tables = [surface.evaluate(weights, strategy=s, chunk=2) for s in STRATEGIES]
    close(tables[1], tables[0])
    close(tables[2], tables[0])
    expected = [float(surface(w)) for w in weights]
    assert tables[0].loss.tolist() == pytest.approx(expected, rel=1e-5)
    if name == "regression":
        assert "error" not in tables[0].columns
        torch.testing.assert_close(tables[0].nll, tables[0].loss + math.log(3))
        assert tables[0].rmse[0].item() == pytest.approx(
            ll.predict(surface, weights[0]).metrics()["rmse"], rel=1e-5
        )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_statistics_are_of_each_point_or_frozen(strategy):
    net = conv_bn()
    surface = ll.LossSurface(net, ll.Classification(), images())
    w = surface.layout.flatten(net)
    weights = torch.stack([w, 0.5 * w, 2 * w])
    refreshed = surface.evaluate(weights, strategy=strategy, chunk=2)
    frozen = surface.evaluate(weights, batchnorm="frozen", strategy=strategy, chunk=2)
    for i, each in enumerate(weights):
        assert refreshed.loss[i].item() == pytest.approx(float(surface(each)), rel=1e-5)
        assert frozen.loss[i].item() == pytest.approx(
            float(surface(each, batchnorm="frozen")), rel=1e-5
        )
    assert not torch.allclose(refreshed.loss, frozen.loss, rtol=1e-2)


def test_statistics_come_from_the_surface_not_from_the_loader():
    net = conv_bn()
    surface = ll.LossSurface(net, ll.Classification(), images())
    other = [(3 * x + 1, y) for x, y in images()]
    w = surface.layout.flatten(net)
    table = surface.evaluate(w, other)
    assert table.loss.item() == pytest.approx(float(surface(w, loader=other)), rel=1e-5)
    shifted = ll.LossSurface(net, ll.Classification(), other)
    assert abs(table.loss.item() - float(shifted(w))) > 1e-3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_losses_that_are_not_finite(strategy):
    surface = ll.LossSurface(nn.Linear(1, 1), ll.Regression(noise_variance=1.0),
                             [(torch.ones(2, 1), torch.zeros(2, 1))])  # fmt: skip
    weights = torch.tensor([[0.0, 1.0], [1e25, 0.0], [3e38, 3e38], [1.0, 1.0]])
    table = surface.evaluate(weights, strategy=strategy, chunk=2)
    expected = [float(surface(w)) for w in weights]
    assert expected[1] == math.inf
    assert table.loss.tolist() == pytest.approx(expected, nan_ok=True)
    assert table.nll.isfinite().tolist() == [True, False, False, True]
    assert table.rmse.isnan().tolist() == [False, True, True, False]
    net = mlp()
    surface = ll.LossSurface(net, ll.Classification(), blobs())
    w = surface.layout.flatten(net)
    table = surface.evaluate([w, torch.full_like(w, 3e38), w], strategy=strategy)
    assert table.loss.isnan().tolist() == [False, True, False]
    assert table.error.isnan().tolist() == [False, True, False]


def test_kinds_of_weights():
    _, surface = small()
    weights = scattered(surface.layout, 4)
    expected = surface.evaluate(weights, strategy="points")
    for same in (
        list(weights),
        iter(weights),
        ll.Ensemble(weights),
        [ll.Point(w) for w in weights],
    ):
        close(surface.evaluate(same, strategy="points"), expected)
    assert len(surface.evaluate(weights[0])) == 1
    post = ll.Gaussian(weights[0], torch.ones_like(weights[0]))
    table = surface.evaluate(post, samples=3, seed=2)
    assert table.loss[2].item() == pytest.approx(float(surface(post.draw(2, seed=2))), rel=1e-5)
    other = [(x + 1, y) for x, y in blobs()]
    assert surface.evaluate(weights, other).loss[1].item() == pytest.approx(
        float(surface(weights[1], loader=other)), rel=1e-5
    )
    with pytest.raises(ll.DataError, match="no targets"):
        surface.evaluate(weights, [x for x, _ in blobs()])


def test_progress_counts_points():
    _, surface = small()
    calls = []
    weights = scattered(surface.layout, 7)
    surface.evaluate(weights, strategy="vmap", chunk=3, progress=lambda d, t: calls.append((d, t)))
    assert calls == [(3, 7), (6, 7), (7, 7)]


def test_points_are_not_held():
    _, surface = small()
    count = 0

    def many():
        nonlocal count
        for w in scattered(surface.layout, 50):
            count += 1
            yield w

    calls = []
    surface.evaluate(
        many(), strategy="batches", chunk=8, progress=lambda d, _: calls.append((d, count))
    )
    assert all(count <= d + 8 for d, count in calls)


def test_there_are_many_cases():
    assert len(CASES) > 10
