import math
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3D, Poly3DCollection

from lowland.errors import ConfigError, DataError
from lowland.plots import surface as flat
from lowland.plots import surface3d
from lowland.plots.overlays import HIDDEN, INKS
from lowland.plots.style import colours_of
from lowland.plots.surface3d import Relief, between
from lowland.records import SurfaceResult
from tests.plots.contract import FigureContract
from tests.plots.test_surface import BOWL, X, Y, bar, bowl, drawn_over, holed, ticks


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Fewer facets, for speed."""
    monkeypatch.setattr(sys.modules["lowland.plots.surface3d"], "FINE", 41)


class TestSurface3d(FigureContract):
    figure = "surface3d"

    def record(self):
        return drawn_over()

    def axes(self):
        return Figure().add_subplot(projection="3d")

    def odd_records(self):
        near = {name: torch.tensor([0.1 * i, 0.1]) for i, name in enumerate(["W1", "W2", "SWA"])}
        return {"holes": holed(), "flat": bowl(0 * BOWL), "near marks": bowl(marks=near)}


def landscape(ax):
    (found,) = [c for c in ax.collections if isinstance(c, Poly3DCollection) and c.zorder == 2]
    corners = np.array(found._faces)
    corners[np.broadcast_to(found._invalid_vertices, corners.shape[:2])] = np.nan  # of triangles
    return corners.reshape(-1, 3), np.asarray(found._facecolor3d)


@pytest.mark.parametrize(("height", "top"), [("linear", 5.0), ("log", 7.0)])
def test_it_is_as_high_as_the_values_and_cut_off_at_the_top(height, top):
    ax = surface3d(bowl(), height=height)
    corners, _ = landscape(ax)
    x, y, z = corners[np.isfinite(corners).all(1)].T
    assert z.max() == pytest.approx(top)
    assert z.min() == pytest.approx(0.1 if height == "linear" else 0.0, abs=1e-6)
    inside = 0.1 + x**2 + y**2 < 4
    if height == "linear":  # the bowl, but for interpolation between points of the grid
        np.testing.assert_allclose(z[inside], (0.1 + x**2 + y**2)[inside], atol=0.032)
        assert [tick for tick in ax.get_zticks() if tick < 0.1] == []
    else:
        labels = [label.get_text() for label in ax.get_zticklabels()]
        assert labels == [text for text in ticks(flat(bowl())) if ">" not in text]


def test_colours_are_those_of_the_flat_picture_but_for_the_light():
    _, colours = landscape(surface3d(bowl()))
    bands = colours_of("YlGnBu_r", 8)[:, :3]
    # every facet is a band's colour, or a mixture of two that meet, times 0.8 to 1
    steps = np.linspace(0, 1, 30)[:, None, None]
    mixed = np.concatenate((steps * bands[1:] + (1 - steps) * bands[:-1]).reshape(-1, 1, 3))
    unit = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    some = colours[::7, :3]
    angle = (some / np.linalg.norm(some, axis=1, keepdims=True)) @ unit.T
    assert np.degrees(np.arccos(np.minimum(angle.max(1), 1))).max() < 1.5
    assert len(np.unique(some.round(2), axis=0)) > 8


def test_nothing_is_drawn_over_what_is_not_finite():
    corners, _ = landscape(surface3d(holed()))
    x, y, _ = corners[np.isfinite(corners).all(1)].T
    gap = (np.abs(x - float(X[6])) < 0.2) & (np.abs(y - float(Y[4])) < 0.2)
    assert not gap.any()
    assert not ((x > float(X[20])) & (y > float(Y[9]))).any()
    assert len(x) > 4000


def test_overlays_lie_on_the_landscape():
    ax = surface3d(drawn_over(), height="linear")
    lines = [line for line in ax.lines if isinstance(line, Line3D) and line.get_alpha() == 1]
    (curve,) = [line for line in lines if line.get_label() == "Bezier"]
    x, y, z = (np.asarray(column, float) for column in curve.get_data_3d())
    there = np.isfinite(z)
    assert there.sum() > 20
    expected = np.minimum(0.1 + x**2 + y**2, 5)[there]
    np.testing.assert_allclose(z[there], expected, atol=0.1)
    assert {text.get_text() for text in ax.texts} >= {"SGD 1", "SGD 2", "bend"}
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["chord", "Bezier", "SGD, off the plane by 3.2 to 5.1"]


def test_the_sides_of_a_triangle_follow_the_landscape():
    corners = torch.tensor([[-2.0, -1.0], [2.0, -1.0], [0.0, 1.5], [-2.0, -1.0]])
    ax = surface3d(bowl(curves={"simplex": corners}), height="linear")
    heights = []
    for line in ax.lines:
        if line.get_color() == INKS[0]:
            x, y, z = (np.asarray(column, float) for column in line.get_data_3d())
            there = np.isfinite(z)
            np.testing.assert_allclose(z[there], np.minimum(0.1 + x**2 + y**2, 5)[there], atol=0.1)
            heights += z[there].tolist()
    assert len(heights) >= 200
    assert min(heights) < 1.2 < 4.9 < max(heights)  # a straight side would stay between its ends


def test_what_a_hill_hides_is_faint():
    ridge = torch.exp(-((Y[:, None] / 0.4) ** 2)) * 4 + 0 * X  # along x, seen from -y
    marks = {"before": torch.tensor([0.0, -1.5]), "behind": torch.tensor([0.0, 0.6])}
    ax = surface3d(bowl(0.1 + ridge, marks=marks), height="linear", elevation=20, azimuth=-90)
    before, behind = (line.get_alpha() for line in ax.lines)
    assert (before, behind) == (1, HIDDEN)
    above = surface3d(bowl(0.1 + ridge, marks=marks), height="linear", elevation=85, azimuth=-90)
    assert [line.get_alpha() for line in above.lines] == [1, 1]


def test_labels_stand_beside_their_marks():
    ax = surface3d(bowl(marks={"w": torch.tensor([1.0, -1.0])}))
    ax.figure.canvas.draw()
    (mark,) = ax.lines
    at = ax.transData.transform(mark.get_xydata()[0])  # drawn: its place in the picture
    (text,) = [text for text in ax.texts if text.get_text() == "w"]
    box = text.get_window_extent()
    assert np.hypot(box.x0 + box.width / 2 - at[0], box.y0 + box.height / 2 - at[1]) < 30


def test_between_is_bilinear():
    plane = 2 * X.numpy() - 3 * Y.numpy()[:, None] + X.numpy() * Y.numpy()[:, None]
    rng = np.random.default_rng(0)
    at, up = rng.uniform(-3, 3, 50), rng.uniform(-2, 2, 50)
    found = between(X.numpy(), Y.numpy(), plane, at, up)
    np.testing.assert_allclose(found, 2 * at - 3 * up + at * up)
    outside = between(X.numpy(), Y.numpy(), plane, np.array([3.1, 0.0]), np.array([0.0, -2.1]))
    assert np.isnan(outside).all()


def test_the_floor_has_the_flat_picture_or_nothing():
    assert len(surface3d(bowl()).collections) == 2
    bare = surface3d(bowl(), contours=False)
    assert len(bare.collections) == 1
    assert bare.get_zlim()[0] == 0
    assert ticks(bare)[-1] == "> 5"
    assert bar(bare).get_ylabel() == "training loss (nats)"


def test_what_cannot_be_drawn_raises():
    with pytest.raises(ConfigError, match='projection="3d"'):
        surface3d(bowl(), ax=Figure().add_subplot())
    with pytest.raises(ConfigError, match="height: expected one of log, linear"):
        surface3d(bowl(), height="high")
    with pytest.raises(DataError, match=r"record\.plot\(\)"):
        surface3d(SurfaceResult(X, None, {"loss": X**2}))


def test_the_eye_is_where_the_picture_is_taken_from():
    x = np.linspace(0, 1, 3)
    relief = Relief(x, x, np.zeros((3, 3)), 0.0, 1.0, (1, 1, 1), 90.0, 0.0)
    np.testing.assert_allclose(relief.towards, [0, 0, 1], atol=1e-12)
    relief = Relief(x, 2 * x, np.zeros((3, 3)), 0.0, 1.0, (1, 1, 1), 0.0, -90.0)
    np.testing.assert_allclose(relief.towards, [0, -2, 0], atol=1e-12)
    assert math.isclose(relief.lift, 0.008)
