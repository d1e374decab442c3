import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from lowland.errors import ConfigError, DataError
from lowland.plots import save, surface
from lowland.plots.overlays import MISSING
from lowland.plots.shading import shading
from lowland.plots.style import colours_of
from lowland.records import SurfaceResult
from lowland.records.shades import classic_levels
from tests.plots.bowls import BOWL, X, Y, bowl, drawn_over
from tests.plots.contract import FigureContract, assert_readable


def holed():
    loss = BOWL.clone()
    loss[4, 6], loss[9:, 20:] = math.nan, math.inf
    return bowl(loss)


def along(loss=None, **options):
    loss = (X - 0.5) ** 2 + 0.001 if loss is None else loss
    return SurfaceResult(X, None, {"loss": loss, "test_error": 0.01 * loss}, **options)


def filled(ax):
    """The bands: (levels, colours)."""
    found = [c for c in ax.collections if isinstance(c, QuadContourSet) and c.filled]
    return found[-1].levels, np.asarray(found[-1].get_facecolor())


def bar(ax):
    (found,) = ax.child_axes
    return found


def ticks(ax):
    return [label.get_text() for label in bar(ax).get_yticklabels()]


class TestSurface(FigureContract):
    figure = "surface"

    def record(self):
        return drawn_over()

    def odd_records(self):
        flat = torch.ones(17, 25)
        near = {name: torch.tensor([0.1 * i, 0.1]) for i, name in enumerate(["W1", "W2", "SWA"])}
        two = torch.tensor([0.0, 1.0])
        return {
            "holes": holed(),
            "flat": bowl(flat),
            "zero": bowl(0 * flat),
            "far above the scale": bowl(1e6 * BOWL + 9),
            "huge": bowl(BOWL**60),
            "one number": bowl(BOWL.masked_fill(BOWL > 0.1001, math.nan)),
            "marks near one another, in a corner and outside": bowl(
                marks=near | {"corner": torch.tensor([3.0, 2.0]), "out": torch.tensor([9.0, 9.0])}
            ),
            "the smallest": SurfaceResult(two, two, {"loss": torch.eye(2)}),
            "high and narrow": SurfaceResult(two, 9 * Y, {"loss": BOWL[:, :2]}),
            "long words": bowl(examples=123456, evaluated_mask=BOWL < 3, batchnorm="frozen"),
        }


class TestLine(FigureContract):
    figure = "surface"

    def record(self):
        return along(marks={"SGD": torch.tensor([0.0]), "SWA": torch.tensor([1.0])}, examples=10)

    def odd_records(self):
        loss = (X**2).clone()
        loss[3], loss[-5:] = math.nan, math.inf
        return {
            "holes": along(loss, marks={"a": torch.tensor([2.9]), "b": torch.tensor([5.0])}),
            "flat": along(torch.zeros(25)),
        }


def test_the_bands_are_the_papers():
    levels, colours = filled(surface(bowl()))
    assert len(levels) - 1 == len(colours) == 7 + 1  # and one for what is over
    np.testing.assert_array_equal(levels[1:-1], np.arange(1, 8))  # in bands
    np.testing.assert_allclose(colours, colours_of("YlGnBu_r", 8))  # equally spaced, all used
    gamma = (math.log(5 - 0.1) + 5) / 7  # m = 0.1, M = vmax = 5, alpha = -5
    expected = 0.1 + np.exp(-5 + gamma * np.arange(8))
    shaded = shading(BOWL.numpy(), "loss")
    np.testing.assert_allclose(shaded.levels, [0.1, *expected[1:]])
    np.testing.assert_allclose(shaded.shade(shaded.levels), np.arange(8), atol=1e-12)
    np.testing.assert_array_equal(shaded.levels, classic_levels(0.1, 5.0, -5.0))


def test_errors_are_in_percent_with_their_own_scale():
    record = SurfaceResult(X, Y, {"test_error": 0.04 * BOWL})  # 0.4% to 52%
    ax = surface(record, metric="test_error")
    gamma = (math.log(40 - 0.4) + 1) / 7  # alpha = -1, in percent
    expected = [0.4, *(0.4 + np.exp(-1 + gamma * np.arange(1, 8)))]
    assert ticks(ax) == [*(f"{level:.2g}" for level in expected), "> 40"]
    assert bar(ax).get_ylabel() == "test error (%)"


def test_what_is_over_has_the_last_colour_and_else_it_is_kept():
    over, under = surface(bowl()), surface(bowl(BOWL / 10))
    last = colours_of("YlGnBu_r", 8)[-1]
    np.testing.assert_allclose(filled(over)[1][-1], last)
    assert ticks(over)[-1] == "> 5"
    assert len(filled(under)[1]) == 7
    assert not (filled(under)[1] == last).all(1).any()
    assert ticks(under)[-1] == "1.3"
    with_end = surface(bowl(), vmax=2.0)
    assert ticks(with_end)[-2:] == ["2", "> 2"]


@pytest.mark.parametrize(
    ("scale", "expected"),
    [("log", 0.1 * 50 ** (np.arange(8) / 7)), ("linear", 0.1 + 4.9 * np.arange(8) / 7)],
)
def test_other_scales(scale, expected):
    shaded = shading(BOWL.numpy(), "loss", scale=scale)
    np.testing.assert_allclose(shaded.levels, expected)
    np.testing.assert_allclose(shaded.shade(expected), np.arange(8), atol=1e-12)
    assert len(ticks(surface(bowl(), scale=scale))) == 9


def test_the_papers_colours_are_an_option_and_paler():
    _, colours = filled(surface(bowl(), cmap="jet_r"))
    np.testing.assert_allclose(colours, 1 - 0.65 * (1 - colours_of("jet_r", 8)) + [0, 0, 0, 0])
    assert len(filled(surface(bowl(), bands=3))[1]) == 4


def test_contours_lie_between_bands():
    lines = [c for c in surface(bowl()).collections if isinstance(c, QuadContourSet)][-1]
    assert not lines.filled
    np.testing.assert_array_equal(lines.levels, np.arange(1, 8))
    radius = np.linalg.norm(lines.get_paths()[-1].vertices, axis=1)  # of the circle at 5
    np.testing.assert_allclose(radius, math.sqrt(4.9), rtol=0.005)
    assert len(surface(bowl(), contours=False).collections) == 1


def test_what_is_not_finite_is_grey_and_not_interpolated_over(tmp_path):
    ax = surface(holed())
    assert "grey: NaN or infinite, 41 of 425 points" in ax.texts[0].get_text().replace("\n", " ")
    ax.figure.canvas.draw()
    pixels = np.asarray(ax.figure.canvas.buffer_rgba())

    def colour(x, y):
        column, row = ax.transData.transform((x, y))
        return pixels[int(len(pixels) - row), int(column)] / 255

    grey = to_rgba(MISSING)
    np.testing.assert_allclose(colour(float(X[6]), float(Y[4])), grey, atol=0.01)
    np.testing.assert_allclose(colour(2.8, 1.8), grey, atol=0.01)
    half = 0.4 * float(X[1] - X[0])  # of the way to a neighbour that is there
    np.testing.assert_allclose(colour(float(X[6]) + half, float(Y[4])), grey, atol=0.01)
    assert np.ptp(colour(0.0, 0.05)[:3]) > 0.2  # a colour
    assert not any(np.allclose(c[:3], grey[:3], atol=0.1) for c in colours_of("YlGnBu_r", 8))


def test_axes_are_named_by_what_the_record_knows():
    def names(**options):
        ax = surface(SurfaceResult(X, Y, {"loss": BOWL}, **options))
        return ax.get_xlabel(), ax.get_ylabel(), ax.get_aspect()

    components = ("component 1 (62%)", "component 2 (21%)", 1)
    assert names(explained_variance_ratio=torch.tensor([0.62, 0.21])) == components
    assert names(about={"orthonormal": True})[0] == "distance in weight space"
    assert names() == ("first direction", "second direction", 1)
    assert names(about={"orthonormal": False})[2] == "auto"
    assert names(about={"labels": ["u", "v"]})[:2] == ("u", "v")


def test_points_that_were_evaluated_are_shown():
    mask = BOWL < 1
    (dots,) = surface(bowl(evaluated_mask=mask), show_points=True).lines
    i, j = np.nonzero(mask.numpy())
    np.testing.assert_allclose(dots.get_xydata(), np.stack([X.numpy()[j], Y.numpy()[i]], 1))
    (dots,) = surface(bowl(), show_points=True).lines
    assert len(dots.get_xydata()) == 425


@pytest.mark.parametrize("layout", [None, "constrained"])
def test_on_axes_of_yours_beside_others_all_of_it_is_in_the_picture(tmp_path, layout):
    figure = Figure(figsize=(11, 4.5), layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    for ax, name in zip(axes, ("loss", "error"), strict=True):
        ax.set_title("mine")
        assert surface(drawn_over(), ax=ax, metric=name) is ax
    figure.canvas.draw()
    left, right = axes
    assert figure.axes == list(axes)
    assert left.get_title() == "mine"
    for ax in axes:
        assert_readable(ax)
        assert bar(ax).get_tightbbox().x1 < figure.bbox.x1
    assert bar(left).get_tightbbox().x1 < right.get_tightbbox().x0
    save(left, tmp_path / "two.png", dpi=40)


def test_levels_that_have_no_room_are_left_out():
    figure = Figure(figsize=(5, 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    ax = surface(bowl(), ax=figure.add_subplot())
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in bar(ax).get_yticklabels()]
    assert 2 <= len(boxes) < 9
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    assert ticks(ax)[-1] == "> 5"


def test_a_flat_surface_has_one_colour_and_plain_levels():
    ax = surface(bowl(torch.zeros(17, 25)))
    _, colours = filled(ax)
    assert ticks(ax)[0] == "0"
    assert ticks(ax)[-1] == "1"
    assert len([c for c in ax.collections if isinstance(c, QuadContourSet)]) == 1  # no contours
    areas = [len(path.vertices) for path in ax.collections[-1].get_paths()]
    assert [size > 0 for size in areas] == [True] + [False] * (len(colours) - 1)


def test_a_line_is_drawn_over_x_with_gaps():
    loss = ((X - 0.5) ** 2 + 0.001).clone()
    loss[3] = math.inf
    ax = surface(along(loss, marks={"w0": torch.tensor([0.0])}), show_points=True)
    line, mark = ax.lines
    assert line.get_marker() == "."
    assert np.isnan(line.get_ydata()[3])
    np.testing.assert_allclose(np.delete(line.get_ydata(), 3), np.delete(loss.numpy(), 3))
    assert ax.get_yscale() == "log"
    np.testing.assert_allclose(mark.get_xydata()[0], [0, np.interp(0, X.numpy(), loss.numpy())])
    (span,) = ax.patches
    assert span.get_x() == pytest.approx(float(X[2] + X[3]) / 2)
    assert span.get_width() == pytest.approx(float(X[1] - X[0]))
    assert surface(along(), scale="linear", vmax=2.0).get_ylim() == (0, 2)
    assert surface(along(), metric="test_error").get_ylabel() == "test error (%)"


def test_what_cannot_be_drawn_raises():
    with pytest.raises(ConfigError, match="metric: expected one of loss, error, got 'nll'"):
        surface(bowl(), metric="nll")
    for record in (bowl(), along()):
        with pytest.raises(ConfigError, match="scale: expected one of classic, log, linear"):
            surface(record, scale="cubic")
    with pytest.raises(ConfigError, match=r"least value, 0\.1, got 0\.05"):
        surface(bowl(), vmax=0.05)
    with pytest.raises(ConfigError, match=r"cmap: .*got 'blues and greens'"):
        surface(bowl(), cmap="blues and greens")
    with pytest.raises(ConfigError, match="bands: expected a whole number of at least 1"):
        surface(bowl(), bands=0)
    with pytest.raises(ConfigError, match="'log' needs positive values"):
        surface(bowl(BOWL - 0.1), scale="log")
    with pytest.raises(DataError, match="all values are NaN"):
        surface(bowl(BOWL * math.nan))
    with pytest.raises(DataError, match=r"expected \(17, 25\) values"):
        surface(bowl(BOWL.T))
    with pytest.raises(DataError, match="increasing"):
        surface(SurfaceResult(-X, Y, {"loss": BOWL}))
