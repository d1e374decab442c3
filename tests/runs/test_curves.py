"""Curves between two networks, losses along them, and their table."""

import pytest
import torch

import lowland as ll
from lowland.records import PathResult, Table, TrainingLog


@pytest.fixture
def curve(finished):
    return ll.Bezier.load(finished.folder / "connect/shapes/bezier.safetensors")


def test_a_curve_ends_at_the_two_networks_and_bends_between_them(finished, curve):
    ends = [finished.load(finished.run.annealed(i)).point.weights for i in range(2)]
    assert torch.equal(curve.anchors[0], ends[0])
    assert torch.equal(curve.anchors[-1], ends[1])
    assert (curve.anchors[1] - (ends[0] + ends[1]) / 2).abs().max() > 1e-3


def test_losses_along_it_are_those_of_its_points(finished, curve):
    record = PathResult.load(finished.folder / "connect/records/path-bezier.json")
    setup = finished.run.setup
    assert len(record.t) == 5
    for t, loss in zip(record.t.tolist()[1:4], record.loss.tolist()[1:4], strict=True):
        point = curve.point(torch.tensor([[t]]))
        assert loss == pytest.approx(float(setup.surface(point)), rel=1e-5)


def test_the_table_has_a_row_a_curve(finished):
    table = Table.load(finished.folder / "connect/records/curves.json")
    assert table.method == ["Line", "Bezier curve"]
    for row, kind in zip(table.rows(), ("line", "bezier"), strict=True):
        record = PathResult.load(finished.folder / f"connect/records/path-{kind}.json")
        assert row["loss_max"] == pytest.approx(float(record.loss.max()))
        assert row["barrier"] == pytest.approx(record.barrier)


def test_the_log_of_a_fit_has_no_seconds(finished):
    log = TrainingLog.load(finished.folder / "connect/records/training-bezier.json")
    assert len(log.columns["epoch"]) == 1
    assert "seconds" not in log.columns
