import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.tri import TriContourSet

from lowland.errors import ConfigError, DataError
from lowland.landscape.ternary import barycentric_grid
from lowland.plots import ternary
from lowland.plots.shading import shading
from lowland.plots.style import colours_of
from lowland.records import TernaryResult
from tests.plots.contract import FigureContract, assert_readable

GRID = barycentric_grid(13)
BOWL = 0.1 + 8 * (GRID - GRID.mean(0)).square().sum(1)


def over(loss=BOWL, lengths=(5.0, 6.0, 7.0), **options):
    metrics = {"loss": loss, "error": 0.02 * BOWL}
    sides = torch.tensor(lengths, dtype=torch.float64)
    return TernaryResult(GRID, metrics, lengths=sides, **options)


def holed():
    loss = BOWL.clone()
    loss[20:23], loss[60] = math.nan, math.inf
    return over(loss)


class TestTernary(FigureContract):
    figure = "ternary"

    def record(self):
        return over(names=["SGD", "SWA", "annealed"], split="test", examples=4096)

    def odd_records(self):
        long = [f"a network of the seed {i}" for i in range(3)]
        return {
            "holes": holed(),
            "flat": over(torch.ones(len(GRID))),
            "one number": over(BOWL.masked_fill(BOWL.min() < BOWL, math.nan)),
            "far above the scale": over(1e6 * BOWL),
            "a right angle": over(lengths=(3.0, 5.0, 4.0), names=long, examples=123456),
            "long and narrow": over(lengths=(10.0, 9.0, 2.0)),
            "nearly a line": over(lengths=(1.0, 2.0, 3.0)),
            "one point": over(lengths=(0.0, 0.0, 0.0)),
            "the smallest": TernaryResult(torch.eye(3), {"loss": torch.rand(3)}),
        }


def corners(ax):  # (3, 2)
    (dots,) = (line for line in ax.lines if line.get_marker() == "o")
    return dots.get_xydata()


def bands(ax):
    return [c for c in ax.collections if isinstance(c, TriContourSet) and c.filled]


@pytest.mark.parametrize(
    "lengths", [(5, 6, 7), (7, 5, 6), (6, 7, 5), (3, 5, 4), (10, 9, 2), (1, 1, 1)]
)
def test_sides_are_in_proportion_and_the_longest_lies_below(lengths):
    xy = corners(ternary(over(lengths=lengths)))
    sides = np.linalg.norm(np.roll(xy, -1, axis=0) - xy, axis=1)
    np.testing.assert_allclose(sides, lengths)
    assert sorted(xy[:, 1])[:2] == [0, 0]  # the base
    longest = int(np.argmax(lengths))
    assert xy[longest][1] == xy[(longest + 1) % 3][1] == 0
    first, second = xy[1] - xy[0], xy[2] - xy[0]
    assert first[0] * second[1] - first[1] * second[0] > 0  # 0, 1, 2 against the clock
    assert ternary(over(lengths=lengths)).get_aspect() == 1


def test_what_is_nearly_a_line_has_equal_sides_and_says_so():
    ax = ternary(over(lengths=(1.0, 2.0, 2.99)))
    xy = corners(ax)
    np.testing.assert_allclose(np.linalg.norm(np.roll(xy, -1, axis=0) - xy, axis=1), 1)
    assert ax.get_xlabel().replace("\n", " ").endswith("; not in proportion")
    plain = ternary(over()).get_xlabel()
    assert plain == "distances |w0 − w1| = 5, |w1 − w2| = 6, |w2 − w0| = 7"


def test_points_lie_at_their_shares_of_the_vertices():
    ax = ternary(over(), show_points=True)
    (dots,) = (line for line in ax.lines if line.get_marker() == ".")
    np.testing.assert_allclose(dots.get_xydata(), GRID.numpy() @ corners(ax))
    at = {t.get_text(): t.xy for t in ax.texts[:3]}
    np.testing.assert_allclose([at["w0"], at["w1"], at["w2"]], corners(ax))


def test_long_names_keep_off_the_colour_bar():
    ax = ternary(over(names=["a network of a long name", "x", "another with a long name"]))
    ax.figure.canvas.draw()
    (bar,) = ax.child_axes
    boxes = [text.get_window_extent() for text in ax.texts[:3]]
    assert not any(box.overlaps(bar.get_tightbbox()) for box in boxes)


def test_bands_are_those_of_a_plane():
    ax = ternary(over(BOWL / 2), bands=5)
    (filled,) = bands(ax)
    np.testing.assert_allclose(filled.get_facecolor(), colours_of("YlGnBu_r", 6)[:5])
    shaded = shading(BOWL.numpy() / 2, "loss", bands=5)
    labels = [label.get_text() for label in ax.child_axes[0].get_yticklabels()]
    assert labels == shaded.labels()
    over_it = ternary(over(20 * BOWL), bands=5)
    assert over_it.child_axes[0].get_yticklabels()[-1].get_text() == "> 5"
    assert ternary(over(), metric="error").child_axes[0].get_ylabel() == "error (%)"
    assert ternary(over(split="train")).child_axes[0].get_ylabel() == "train loss (nats)"


def test_the_bands_fill_the_triangle_whatever_its_form():
    for lengths in [(5, 6, 7), (10, 9, 2), (3, 5, 4)]:
        ax = ternary(over(lengths=lengths), contours=False)
        (filled,) = bands(ax)
        a, b, c = corners(ax)
        whole = abs(np.cross([*(b - a), 0], [*(c - a), 0])[2]) / 2
        areas = [area(p) for path in filled.get_paths() for p in path.to_polygons()]
        assert abs(sum(areas)) == pytest.approx(whole, rel=1e-6)


def area(polygon):  # (q, 2), with a sign that says whether it is a hole
    x, y = polygon.T
    return 0.5 * float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))


def test_nothing_is_interpolated_over_what_is_missing():
    ax = ternary(holed())
    grey, filled = bands(ax)
    assert grey.get_facecolor()[0].tolist() == pytest.approx([189 / 255] * 3 + [1])
    xy = GRID.numpy() @ corners(ax)
    missing = [20, 21, 22, 60]
    for i in missing:
        assert not any(path.contains_point(xy[i]) for path in filled.get_paths())
    assert "grey: NaN or infinite, 4 of 91 points" in ax.texts[-1].get_text().replace("\n", " ")
    assert len(bands(ternary(over()))) == 1


def test_the_users_axes_keep_their_neighbours():
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    right.plot([0, 1])
    ternary(over(), ax=left)
    figure.canvas.draw()
    assert left.get_tightbbox().x1 <= right.get_tightbbox().x0
    assert_readable(left)


def test_what_cannot_be_drawn():
    with pytest.raises(ConfigError, match="expected one of loss, error, got 'nll'"):
        ternary(over(), metric="nll")
    with pytest.raises(ConfigError, match="scale"):
        ternary(over(), scale="cubic")
    with pytest.raises(DataError, match=r"expected \(n,\) values at \(n, 3\)"):
        ternary(TernaryResult(torch.rand(4, 2), {"loss": torch.rand(4)}))
    with pytest.raises(DataError, match="NaN or infinite"):
        ternary(over(torch.full((len(GRID),), math.nan)))
    line = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 1.0, 0]])
    with pytest.raises(DataError, match="all points lie on a line"):
        ternary(TernaryResult(line, {"loss": torch.rand(3)}))
