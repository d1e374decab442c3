"""Curves of predictions that are made by hand: metrics under corruption, risk."""

import numpy as np
import pytest
import torch

import lowland as ll
from lowland.cli.comparison_curves import RiskRecord, ShiftRecord
from lowland.cli.comparison_tables import ShiftTable
from tests.cli.method_rows import CORRUPTIONS, TASK, built, rows_and_predictions


def test_shift_table_and_curves_have_the_same_numbers(tmp_path):
    rows, preds = rows_and_predictions()
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


def test_risk_is_a_mean_over_runs(tmp_path):
    rows, preds = rows_and_predictions()
    risk = built(tmp_path, RiskRecord(rows[0], TASK))
    each = [ll.selective(preds["sgd", r]["test"]).risk for r in (0, 1)]
    torch.testing.assert_close(risk.risk, torch.stack(each).mean(0))
    assert (tmp_path / "records" / "selective-sgd.npz").is_file()
