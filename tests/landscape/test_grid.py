"""The grid of a scan: its box, its margin, and marks that are hit."""

import pytest
import torch

import lowland as ll
from tests.landscape.surfaces import net_surface, plane_of, quadratic


def test_the_grid_is_the_box_with_its_margin():
    surface, _ = quadratic()
    plane = plane_of(surface)
    result = ll.scan(plane, surface, resolution=3, margin=0.5)
    (x0, x1), (y0, y1) = plane.box(0.5)
    assert result.x.tolist() == pytest.approx([x0, (x0 + x1) / 2, x1])
    assert result.y.tolist() == pytest.approx([y0, (y0 + y1) / 2, y1])
    result = ll.scan(plane, surface, resolution=2, bounds=((-1, 2), (3, 4)))
    assert (result.x.tolist(), result.y.tolist()) == ([-1, 2], [3, 4])
    w = torch.zeros(3)
    bare = ll.scan(ll.Plane(w, *torch.eye(3)[:2]), surface, resolution=3)
    assert bare.x.tolist() == bare.y.tolist() == [-1, 0, 1]


def test_the_centre_and_the_marks_are_hit_exactly():
    """t = 0 is evaluated, and with the weights themselves."""
    surface = net_surface()
    plane = plane_of(surface)
    seen = []

    def note(surface, point):
        seen.append(point.weights.clone())
        return {"number": len(seen)}

    end = float(plane.marks[1, 0])
    # steps whose sums do not come out even: 0 and the mark are points 3 and 10
    bounds = ((-3 / 7 * end, 13 / 7 * end), (-0.3, 0.6))
    result = ll.scan(
        plane, surface, resolution=(17, 4), bounds=bounds, metrics=("loss", note), strategy="vmap"
    )
    assert result.x[3] == 0
    assert result.y[1] == 0
    assert result.x[10] == plane.marks[1, 0]
    at = int(result.number[1, 3]) - 1
    assert torch.equal(seen[at], plane.center)
    torch.testing.assert_close(result.loss[1, 3], surface(plane.center))
    line = ll.Line(*plane.anchors[:2])
    seen.clear()
    ll.scan(line, surface, resolution=3, metrics=note)
    assert torch.equal(seen[0], line.anchors[0])
    assert torch.equal(seen[2], line.anchors[1])
