"""Tables of predictions that are made by hand: means over runs, differences, scores."""

import numpy as np
import pytest

import lowland as ll
from lowland.cli.comparison_tables import ComparisonTable, DifferencesTable, OODTable
from tests.cli.method_rows import CORRUPTIONS, built, rows_and_predictions


def test_the_comparison_is_of_means_over_runs(tmp_path):
    rows, preds = rows_and_predictions()
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


def test_differences_to_the_first_method(tmp_path):
    rows, preds = rows_and_predictions()
    table = built(tmp_path, DifferencesTable(rows))
    pairs = [
        preds["swag", run]["test"].metrics()["nll"] - preds["sgd", run]["test"].metrics()["nll"]
        for run in range(2)
    ]
    assert table.method == ["SWAG"]
    assert float(table.nll[0]) == pytest.approx(np.mean(pairs))


def test_out_of_distribution_scores(tmp_path):
    rows, preds = rows_and_predictions()
    table = list(built(tmp_path, OODTable(rows)).rows())
    expected = [ll.ood(preds["sgd", r]["test"], preds["sgd", r]["ood/noise"]) for r in (0, 1)]
    assert [row["score"] for row in table[:2]] == expected[0].score[:2]
    assert table[0]["fpr95"] == pytest.approx(np.mean([float(t.fpr95[0]) for t in expected]))
