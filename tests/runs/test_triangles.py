"""The loss on the triangle of a simplex's first three vertices."""

import pytest

from lowland.runs.triangles import Triangle, triangle_picture


def test_its_corners_have_the_losses_of_the_vertices(finished):
    run = finished.run
    artifact = Triangle(run, run.simplex(0))
    growth = finished.load(run.simplex(0))
    record = artifact.build({run.simplex(0).name: growth}, None, lambda done, total: None)
    assert list(record.names) == ["v0", "v1", "v2"]
    surface = run.setup.surface
    vertices = [growth.simplex.anchor(i) for i in growth.simplex.cells[0][:3]]
    expected = [float(surface(vertex)) for vertex in vertices]
    corners = [int(index) for index in record.coords.max(0).indices]
    assert record.loss[corners].tolist() == pytest.approx(expected, rel=1e-4)
    assert triangle_picture(run, run.simplex(0)).inputs[0].fingerprint == artifact.fingerprint
