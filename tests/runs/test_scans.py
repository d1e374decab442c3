"""Scans of planes."""

import pytest
import torch

import lowland as ll
from lowland.artifacts import Graph
from lowland.records import SurfaceResult
from lowland.runs.scans import Grid, ScanPictures, SurfaceScan


def scan_of(finished, split="train", anchors=(0, 1), **overlays):
    points = [finished.load(finished.run.annealed(i)).point.weights for i in anchors]
    grid = Grid(resolution=3, margin=0.0, refine=None, examples=10_000, split=split)
    return SurfaceScan(finished.run, "sgd-0,sgd-1", ll.Line(*points), overlays, grid), points


@pytest.mark.parametrize("split", ["train", "test"])
def test_losses_are_those_of_the_surface(finished, tmp_path, split):
    artifact, points = scan_of(finished, split)
    graph = Graph(tmp_path)
    graph.build([artifact])
    record = graph.load(artifact)
    setup = finished.run.setup
    loader = setup.test if split == "test" else None
    expected = [float(setup.surface(w, loader=loader)) for w in points]
    assert record.loss[[0, -1]].tolist() == pytest.approx(expected, rel=1e-5)
    assert record.about["split"] == ("training" if split == "train" else "test")


def test_other_weights_splits_and_overlays_are_other_scans(finished):
    prints = {
        scan_of(finished)[0].fingerprint,
        scan_of(finished, "test")[0].fingerprint,
        scan_of(finished, anchors=(1, 0))[0].fingerprint,
        scan_of(finished, marks={"a": torch.zeros(610)})[0].fingerprint,
    }
    assert len(prints) == 4
    assert scan_of(finished)[0].fingerprint in prints


def test_a_forecast_names_the_points(finished):
    assert "3 points" in scan_of(finished)[0].forecast()


def test_pictures_follow_the_scan(finished):
    artifact, _ = scan_of(finished)
    assert ScanPictures(artifact).inputs == (artifact,)
    plane = finished.folder / "connect/plane"
    assert SurfaceResult.load(plane / "records/surface.npz").loss.shape == (3, 3)
    assert {"loss.png", "loss-3d.png"} <= {path.name for path in (plane / "pictures").iterdir()}
