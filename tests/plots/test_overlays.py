"""What is drawn over a surface: marks, curves, paths and the words below."""

import numpy as np
import pytest
import torch

from lowland.plots import surface
from tests.plots.bowls import BOWL, bowl, drawn_over


def test_overlays_are_drawn_and_named():
    ax = surface(drawn_over())
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["chord"].get_linestyle() == "--"
    assert lines["Bezier"].get_linestyle() == "-"
    np.testing.assert_allclose(lines["Bezier"].get_xydata(), drawn_over().curves["Bezier"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "chord",
        "Bezier",
        "SGD, off the plane by 3.2 to 5.1",
    ]
    texts = {text.get_text(): text for text in ax.texts}
    caption = "BatchNorm statistics recomputed at each point; 4,096 training examples"
    assert set(texts) == {caption, "SGD 1", "SGD 2", "bend"}
    assert texts["bend"].xy == (-1, 1)
    at = {tuple(np.ravel(line.get_xydata())): line.get_marker() for line in ax.lines}
    assert (at[-1, 1], at[0, 0]) == ("D", "o")
    shades = [
        float(line.get_markerfacecolor())
        for line in ax.lines
        if line.get_marker() == "o" and isinstance(line.get_markerfacecolor(), str)
        if line.get_markerfacecolor().replace(".", "").isdigit()
    ]
    assert len(shades) == 40
    assert shades == sorted(shades, reverse=True)  # darker on the way


def test_what_is_straight_is_dashed_however_many_points_it_has():
    t = torch.linspace(0, 1, 30)[:, None]
    ends = torch.tensor([[-2.0, -1.0], [2.0, 1.5]])
    triangle = torch.tensor([[-2.0, -1.0], [2.0, -1.0], [0.0, 1.0], [-2.0, -1.0]])
    chord = ends[0] + t * (ends[1] - ends[0])
    slightly = chord + 0.05 * torch.tensor([0.0, 1.0]) * t * (1 - t)
    curves = {"chord": chord, "bent": slightly, "triangle": triangle}
    styles = [line.get_linestyle() for line in surface(bowl(curves=curves)).lines]
    assert styles == ["--", "-", "-"]


def test_a_triangle_keeps_its_corners_and_labels_keep_off_its_sides():
    corners = torch.tensor([[-2.0, -1.0], [2.0, -1.0], [0.0, 1.5]])
    closed = torch.cat([corners, corners[:1]])
    ax = surface(bowl(curves={"simplex": closed}, marks=dict(zip("abc", corners, strict=True))))
    (sides,) = (line for line in ax.lines if line.get_label() == "simplex")
    xy = sides.get_xydata()
    for corner in corners.numpy():
        assert np.abs(xy - corner).sum(1).min() == 0
    np.testing.assert_array_equal(xy[0], xy[-1])
    length = np.linalg.norm(np.diff(xy, axis=0), axis=1).sum()
    assert length == pytest.approx(float((closed[1:] - closed[:-1]).norm(dim=1).sum()))
    seen = ax.transData.transform(xy)
    for text in ax.texts:
        if text.get_text() in "abc":
            box = text.get_window_extent()
            inside = (seen > [box.x0, box.y0]) & (seen < [box.x1, box.y1])
            assert not inside.all(1).any(), text.get_text()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["simplex"]


def test_a_path_that_lies_on_the_plane_says_so():
    path = {"coords": torch.rand(3, 2), "residual": torch.zeros(3)}
    (text,) = surface(bowl(paths={"SGD": path})).get_legend().get_texts()
    assert text.get_text() == "SGD, on the plane"


def test_batchnorm_and_examples_are_reported():
    def words(**options):
        return [t.get_text().replace("\n", " ") for t in surface(bowl(**options)).texts]

    assert words(batchnorm="frozen", examples=12) == [
        "BatchNorm statistics frozen; 12 training examples"
    ]
    assert words(batchnorm="none") == []
    (text,) = words(evaluated_mask=BOWL < 1)
    assert text.endswith(f"; {int((BOWL < 1).sum())} of 425 points evaluated, others interpolated")
