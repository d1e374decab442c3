"""Metrics, tables and curves of predictions that are made by hand."""

import numpy as np
import pytest
import torch

import lowland as ll
from lowland.artifacts import Graph, Source
from lowland.cli.ood import Corruption
from lowland.cli.predictions import MethodPredictions
from lowland.cli.summary import (
    ComparisonTable,
    DifferencesTable,
    MethodMetrics,
    MethodRow,
    OODTable,
    RiskRecord,
    ShiftRecord,
    ShiftTable,
)
from lowland.core import Classification, Regression

TASK = Classification()
CORRUPTIONS = [
    Corruption(kind, n, 0, 20, (0.0,), (1.0,)) for kind in ("contrast", "blur") for n in (4, 2)
]


def prediction(seed, *, quality=1.0, targets=True):
    """Of a network whose logits are its inputs."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(30) % 3
    logits = torch.randn(30, 3, generator=g) + quality * torch.eye(3)[labels]
    surface = ll.LossSurface(torch.nn.Linear(3, 3, bias=False), TASK, [(logits, labels)])
    data = [(logits, labels) if targets else (logits,)]
    return ll.predict(surface, torch.eye(3).flatten(), data)


def method(key, run, quality):
    seed = 100 * run + int(10 * quality)
    preds = {"test": prediction(seed, quality=quality)}
    for i, each in enumerate(CORRUPTIONS, 1):
        preds[each.name] = prediction(seed + i, quality=quality / each.strength)
    preds["ood/noise"] = prediction(seed + 9, quality=0.0, targets=False)
    sets = {
        name: Source(f"{key}-{run}-{name}", pred, {"seed": seed, "set": name})
        for name, pred in preds.items()
    }
    return MethodPredictions(key, key.upper(), sets), preds


@pytest.fixture(scope="module")
def rows():
    """Two methods in two runs, and their predictions."""
    rows, preds = [], {}
    for key, quality in (("sgd", 1.0), ("swag", 2.0)):
        members = []
        for run in range(2):
            predictions, preds[key, run] = method(key, run, quality)
            members.append(predictions)
        metrics = tuple(
            MethodMetrics(f"seed-{run}", each, CORRUPTIONS, TASK)
            for run, each in enumerate(members)
        )
        rows.append(MethodRow(key, key.upper(), metrics, tuple(members)))
    return rows, preds


def built(tmp_path, artifact):
    graph = Graph(tmp_path)
    graph.build([artifact])
    return graph.load(artifact)


def test_the_comparison_is_of_means_over_runs(rows, tmp_path):
    rows, preds = rows
    table = built(tmp_path, ComparisonTable(rows))
    assert table.method == ["SGD", "SWAG"]
    each = [preds["swag", run] for run in range(2)]
    nll = [one["test"].metrics()["nll"] for one in each]
    assert float(table.nll[1]) == pytest.approx(np.mean(nll))
    assert float(table.nll_se[1]) == pytest.approx(abs(nll[0] - nll[1]) / 2)
    aurc = [ll.selective(one["test"]).aurc for one in each]
    assert float(table.aurc[1]) == pytest.approx(np.mean(aurc))
    corrupted = [[one[c.name].metrics()["nll"] for c in CORRUPTIONS] for one in each]
    assert float(table.nll_corrupted[1]) == pytest.approx(np.mean(corrupted))
    auroc = [float(ll.ood(one["test"], one["ood/noise"]).auroc[0]) for one in each]
    assert float(table.auroc_noise[1]) == pytest.approx(np.mean(auroc))


def test_differences_to_the_first_method(rows, tmp_path):
    rows, preds = rows
    table = built(tmp_path, DifferencesTable(rows))
    pairs = [
        preds["swag", run]["test"].metrics()["nll"] - preds["sgd", run]["test"].metrics()["nll"]
        for run in range(2)
    ]
    assert table.method == ["SWAG"]
    assert float(table.nll[0]) == pytest.approx(np.mean(pairs))


def test_shift_table_and_curves_have_the_same_numbers(rows, tmp_path):
    rows, preds = rows
    table = list(built(tmp_path, ShiftTable(rows, CORRUPTIONS)).rows())
    assert [(r["kind"], r["strength"]) for r in table[:5]] == [
        ("clean", 0), ("contrast", 4), ("contrast", 2), ("blur", 4), ("blur", 2),
    ]  # fmt: skip
    curves = built(tmp_path, ShiftRecord(rows[0], CORRUPTIONS))
    assert curves.strength.tolist() == [0, 2, 4]
    nll = [
        np.mean([preds["sgd", r][f"corrupted/blur-{n}"].metrics()["nll"] for r in (0, 1)])
        for n in (2, 4)
    ]
    np.testing.assert_allclose(curves.curves["blur"]["nll"][1:], nll)
    assert [r["nll"] for r in table[3:5]] == pytest.approx(nll[::-1])
    clean = [
        -preds["sgd", r]["test"].target_log_prob[:20].mean().item() for r in (0, 1)
    ]  # the examples that were corrupted
    assert table[0]["nll"] == pytest.approx(np.mean(clean))


def test_out_of_distribution_scores(rows, tmp_path):
    rows, preds = rows
    table = list(built(tmp_path, OODTable(rows)).rows())
    expected = [ll.ood(preds["sgd", r]["test"], preds["sgd", r]["ood/noise"]) for r in (0, 1)]
    assert [row["score"] for row in table[:2]] == expected[0].score[:2]
    assert table[0]["fpr95"] == pytest.approx(np.mean([float(t.fpr95[0]) for t in expected]))


def test_risk_is_a_mean_over_runs(rows, tmp_path):
    rows, preds = rows
    risk = built(tmp_path, RiskRecord(rows[0], TASK))
    each = [ll.selective(preds["sgd", r]["test"]).risk for r in (0, 1)]
    torch.testing.assert_close(risk.risk, torch.stack(each).mean(0))
    assert (tmp_path / "records" / "selective-sgd.npz").is_file()


@pytest.mark.parametrize("mixture", [True, False])
def test_the_crps_of_a_regression_is_of_its_mixture_where_there_is_one(tmp_path, mixture):
    task = Regression(noise_variance=1.0)
    x, y = torch.ones(12, 1), torch.linspace(-1, 1, 12)[:, None]
    surface = ll.LossSurface(torch.nn.Linear(1, 1, bias=False), task, [(x, y)])
    points = ll.Ensemble(torch.tensor([[-2.0], [2.0]]))
    pred = ll.predict(surface, points)
    components = torch.tensor([-2.0, 2.0])[:, None, None].expand(2, 12, 1), torch.ones(2, 12, 1)
    predictions = MethodPredictions(
        "swag",
        "SWAG",
        {"test": Source("test", pred, {"seed": 0})},
        Source("components", components if mixture else None, {"mixture": mixture}),
    )
    metrics = MethodMetrics("seed-0", predictions, [], task)
    table = built(
        tmp_path, ComparisonTable([MethodRow("swag", "SWAG", (metrics,), (predictions,))])
    )
    assert table.crps_of == ["mixture" if mixture else "Gaussian"]
    exact = float(ll.crps(y.double(), *(each.double() for each in components)).mean())
    assert (float(table.crps[0]) == pytest.approx(exact)) == mixture
    assert "nll_se" not in table.columns
