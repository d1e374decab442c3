"""Metrics at coordinates: several loaders, metrics of weights, a file that is continued."""

import pytest
import torch

import lowland as ll
from lowland.landscape.journal import Journal
from lowland.landscape.point_metrics import AllMetricsSink, PointMetrics
from lowland.landscape.point_scan import PointScan
from tests.landscape.surfaces import net_surface, plane_of

COORDS = torch.tensor([[0.0, 0.0], [0.5, 0.1], [1.0, -0.2], [0.2, 0.3]], dtype=torch.float64)
OPTIONS = ll.EvalOptions(strategy="batches", chunk=3, threads=1)


def scan_of(surface, plane, metrics=("loss", "gradient_norm"), blocks=True):
    point_metrics = PointMetrics(surface, metrics, OPTIONS)
    return PointScan(
        plane,
        surface,
        COORDS,
        [(surface.data, point_metrics.sink())],
        OPTIONS,
        row=lambda parts, point: point_metrics(parts[0], point),
        blocks=blocks,
    )


@pytest.mark.parametrize("blocks", [True, False])
def test_each_row_is_that_of_its_point_alone(blocks):
    surface = net_surface()
    plane = plane_of(surface)
    scan = scan_of(surface, plane, blocks=blocks)
    scan.run(Journal(None, {}), scan.plan(), label="test")
    assert list(scan.rows) == [0, 1, 2, 3]
    for i, z in enumerate(COORDS):
        loss, gradient = surface.value_and_grad(plane.point(z))
        assert scan.rows[i]["loss"] == pytest.approx(float(loss), rel=1e-5)
        assert scan.rows[i]["gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-4)


def test_points_are_measured_in_steps_and_taken_from_the_file(tmp_path):
    surface = net_surface()
    plane = plane_of(surface)
    order = [[2, 0], [3, 1]]

    def steps(measure):
        for points in order:
            measure(points)

    first = scan_of(surface, plane)
    journal = Journal(tmp_path / "a.scan", {})
    first.run(journal, first.plan(), steps=steps, label="test")
    assert list(first.rows) == [2, 0, 3, 1]
    again = scan_of(surface, plane)
    again.evaluate = lambda *a: pytest.fail("evaluated")
    journal = Journal(tmp_path / "a.scan", {})
    assert journal.plan == OPTIONS.plan
    again.run(journal, journal.plan, steps=steps, label="test")
    assert again.rows == first.rows


def test_two_loaders_give_two_parts_of_a_row():
    surface = net_surface()
    plane = plane_of(surface)
    batches = list(surface.data)
    some = surface.replayable(batches[:1])
    passes = [(data, AllMetricsSink(surface.task)) for data in (surface.data, some)]
    scan = PointScan(
        plane,
        surface,
        COORDS,
        passes,
        OPTIONS,
        row=lambda parts, _: {"all": parts[0]["loss"], "some": parts[1]["loss"]},
    )
    scan.run(Journal(None, {}), scan.plan(), label="test")
    for i, z in enumerate(COORDS):
        point = plane.point(z)
        assert scan.rows[i]["all"] == pytest.approx(float(surface(point)), rel=1e-5)
        assert scan.rows[i]["some"] == pytest.approx(float(surface(point, loader=some)), rel=1e-5)
