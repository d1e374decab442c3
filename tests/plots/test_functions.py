from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lowland.errors import ConfigError, DataError
from lowland.evaluate import regular_grid
from lowland.plots import functions
from lowland.plots.functions import DEEP, PALE
from lowland.plots.style import PALETTE
from lowland.records import FunctionsResult
from tests.plots.contract import FigureContract, assert_readable, assert_whole

CORNERS = torch.tensor([[-1.0, -2.0], [3.0, 2.0]])
GRID = regular_grid(CORNERS, resolution=21, margin=0.0)  # x in [-1, 3], y in [-2, 2]
X = torch.linspace(-2, 2, 41)[:, None]


def classes(c=2, s=4, data=True):
    """Draws whose classes are stripes in x, steeper from one to the next."""
    centres = torch.linspace(-1, 3, c)
    slopes = torch.arange(1.0, s + 1)[:, None, None]
    draws = (-slopes * (GRID[:, :1] - centres) ** 2).softmax(2)
    rows = {}
    if data:
        labels = torch.arange(30) % c
        spread = torch.linspace(-0.4, 0.4, 30)
        rows["data_inputs"] = torch.stack([centres[labels] + spread, 4 * spread], 1)
        rows["data_targets"] = labels
    return FunctionsResult(GRID, draws, draws.mean(0), **rows)


def lines(s=5, d=1, data=True):
    slopes = torch.linspace(0.5, 1.5, s)[:, None, None]
    shift = torch.arange(d)
    draws = slopes * X + shift
    variance = 0.04 + draws.var(0, correction=0)
    rows = {"data_inputs": X[::4], "data_targets": (X + shift)[::4]} if data else {}
    return FunctionsResult(X, draws, draws.mean(0), variance, "regression", **rows)


class TestLines(FigureContract):
    figure = "functions"

    def record(self):
        return lines(25)

    def odd_records(self):
        return {"one draw": lines(1, data=False), "two targets": lines(3, d=2)}


class TestRow(FigureContract):
    figure = "functions"

    def record(self):
        return {"random": lines(5), "PCA": lines(9), "curve": lines(2)}

    def odd_records(self):
        return {
            "one": {"PCA": lines()},
            "two targets": {"a": lines(3, d=2), "b": lines(3, d=2, data=False)},
            "five": {f"subspace {i}": lines(3) for i in range(5)},
        }

    def test_nothing_of_it_is_cut_off(self):
        super().test_nothing_of_it_is_cut_off()
        for name, record in (self.odd_records() | {"": self.record()}).items():
            assert_whole(self.draw(record, sigmas=3, noise=False), name)


class TestDecisions(FigureContract):
    figure = "functions"

    def record(self):
        return classes()

    def odd_records(self):
        sure = classes(data=False)
        sure.mean[:], sure.draws[:] = 0.0, 0.0
        sure.mean[:, 1], sure.draws[..., 1] = 1.0, 1.0
        return {
            "three classes": classes(3),
            "ten classes": classes(10, s=1),
            "one draw, no data": classes(s=1, data=False),
            "one class everywhere": sure,
        }

    def test_nothing_of_it_is_cut_off(self):
        for name, record in (self.odd_records() | {"": self.record()}).items():
            for max_draws in (0, 3):
                ax = self.draw(record, max_draws=max_draws)
                assert_whole(ax, name)


# -- lines -----------------------------------------------------------------------------------------


def test_lines_bands_and_dots_hold_the_numbers():
    record = lines(5)
    shuffled = torch.randperm(41, generator=torch.Generator().manual_seed(0))
    mixed = FunctionsResult(
        X[shuffled],
        record.draws[:, shuffled],
        record.mean[shuffled],
        record.variance[shuffled],
        "regression",
        record.data_inputs,
        record.data_targets,
    )
    for one in (record, mixed):  # in any order of the inputs
        ax = functions(one)
        thin, (mean,), (dots,) = (
            [line for line in ax.lines if check(line)]
            for check in (
                lambda line: line.get_linewidth() < 1 and line.get_marker() == "None",
                lambda line: line.get_label() == "average ± 2 sd",
                lambda line: line.get_label() == "data",
            )
        )
        np.testing.assert_allclose([line.get_ydata() for line in thin], record.draws[..., 0])
        np.testing.assert_allclose(mean.get_ydata(), record.mean[:, 0])
        np.testing.assert_allclose(dots.get_ydata(), record.data_targets[:, 0])
        (band,) = ax.collections
        top = band.get_paths()[0].vertices
        far = record.mean[:, 0] + 2 * record.variance[:, 0].sqrt()
        assert top[:, 1].max() == pytest.approx(float(far.max()))
        np.testing.assert_allclose(mean.get_xdata(), X[:, 0])


def test_fewer_lines_and_another_target():
    record = lines(5, d=2)
    ax = functions(record, max_draws=2, target=1)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["2 draws", "average ± 2 sd", "data"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), record.draws[0, :, 1])
    assert ax.get_ylabel() == "target 1"
    with pytest.raises(ConfigError, match="target: expected a whole number from 0 to 1, got 2"):
        functions(record, target=2)


def test_the_band_is_as_wide_as_sigmas_with_and_without_noise():
    record = lines(5)  # noise of variance 0.04
    spread = record.draws.var(0, correction=0)[:, 0]
    for options, variance, label in [
        ({"sigmas": 3}, spread + 0.04, "average ± 3 sd"),
        ({"sigmas": 3, "noise": False}, spread, "average ± 3 sd of the draws"),
        ({"noise": False, "max_draws": 1}, spread, "average ± 2 sd of the draws"),  # of all, though
    ]:
        ax = functions(record, **options)
        (band,) = ax.collections
        top = np.array(sorted({tuple(p) for p in band.get_paths()[0].vertices.round(9).tolist()}))
        far = options.get("sigmas", 2) * variance.sqrt()
        for x, mean, half in zip(X[:, 0], record.mean[:, 0], far, strict=True):
            edges = top[np.abs(top[:, 0] - float(x)) < 1e-6, 1]
            assert edges.max() == pytest.approx(float(mean + half), abs=1e-5)
            assert edges.min() == pytest.approx(float(mean - half), abs=1e-5)
        assert label in [text.get_text() for text in ax.get_legend().get_texts()]
    no_noise = FunctionsResult(X, record.draws, record.mean, task="regression")
    assert not functions(no_noise).collections
    assert functions(no_noise, noise=False).collections
    with pytest.raises(ConfigError, match="sigmas: expected a number above 0"):
        functions(record, sigmas=0)


def test_records_by_name_are_panels_of_one_scale():
    records = {"random": lines(2), "PCA": lines(9), "curve": lines(4)}
    ax = functions(records)
    row = [ax, *ax.child_axes]
    assert [axes.texts[0].get_text() for axes in row] == list(records)
    assert ax.get_legend().get_texts()[0].get_text() == "draws"  # as their numbers differ
    same = functions(records, max_draws=2)
    assert same.get_legend().get_texts()[0].get_text() == "2 draws"
    for axes, record in zip(row, records.values(), strict=True):
        thin = [line.get_ydata() for line in axes.lines if line.get_linewidth() < 1]
        np.testing.assert_allclose(thin[: len(record.draws)], record.draws[..., 0])
        assert (axes.get_xlim(), axes.get_ylim()) == (ax.get_xlim(), ax.get_ylim())
    ax.figure.canvas.draw()
    places = [axes.get_window_extent() for axes in row]
    assert all(a.x1 < b.x0 for a, b in pairwise(places))
    assert max(p.width for p in places) - min(p.width for p in places) < 1
    with pytest.raises(ConfigError, match="panels for regressions of 1 input only"):
        functions({"a": classes(), "b": classes()})


# -- decisions -------------------------------------------------------------------------------------


def test_panels_are_the_average_and_draws():
    record = classes(s=5)
    for max_draws, names in [
        (None, ["average", "draw 1", "draw 2", "draw 3"]),
        (1, ["average", "draw 1"]),
        (0, ["average"]),
        (9, ["average", *(f"draw {i}" for i in range(1, 6))]),
    ]:
        ax = functions(record, max_draws=max_draws)
        row = [
            ax,
            *(child for child in ax.child_axes if child.get_shared_x_axes().joined(child, ax)),
        ]
        assert [axes.texts[0].get_text() for axes in row] == names
        places = [axes.get_window_extent() for axes in row]
        widths = [place.width for place in places]
        assert max(widths) - min(widths) < 1
        assert all(a.x1 < b.x0 for a, b in pairwise(places))


def test_the_boundary_is_where_classes_are_as_probable():
    record = classes(2, s=2)  # centres -1 and 3: the boundary is x = 1
    ax = functions(record, max_draws=1)
    for axes in (ax, ax.child_axes[0]):
        (boundary,) = (c for c in axes.collections if not c.filled)
        ((path,),) = (c.get_paths() for c in [boundary])
        np.testing.assert_allclose(path.vertices[:, 0], 1, atol=1e-6)
    three = functions(classes(3, s=1), max_draws=0)  # centres -1, 1, 3: at x = 0 and x = 2
    vertices = np.concatenate([p.vertices[:, 0] for c in three.collections for p in c.get_paths()])
    assert set(vertices.round(6)) == {0.0, 2.0}


def test_probabilities_are_drawn_where_they_are():
    """Not mirrored or transposed: the class of the upper right corner alone."""
    probs = torch.zeros(len(GRID), 3)
    there = (GRID[:, 0] > 1.5) & (GRID[:, 1] > 0.5)
    probs[:, 0] = 1.0
    probs[there] = torch.tensor([0.0, 0.0, 1.0])
    probs[0] = torch.tensor([0.3, 0.4, 0.3])  # the lower left corner, hardly of class 1
    shuffled = torch.randperm(len(GRID), generator=torch.Generator().manual_seed(0))
    record = FunctionsResult(GRID[shuffled], probs[None, shuffled], probs[shuffled])
    (image,) = functions(record, max_draws=0).images
    assert image.origin == "lower"
    seen = image.get_array()
    rgb = np.array([[int(PALETTE[c][i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in range(3)])
    np.testing.assert_allclose(seen[-1, -1], 1 - DEEP * (1 - rgb[2]), atol=1e-6)
    np.testing.assert_allclose(seen[0, -1], 1 - DEEP * (1 - rgb[0]), atol=1e-6)
    np.testing.assert_allclose(seen[-1, 0], 1 - DEEP * (1 - rgb[0]), atol=1e-6)
    pale = PALE + (DEEP - PALE) * (0.4 - 1 / 3) / (2 / 3)
    np.testing.assert_allclose(seen[0, 0], 1 - pale * (1 - rgb[1]), atol=1e-6)
    x0, x1, y0, y1 = image.get_extent()  # pixels around points
    assert (x0, x1) == pytest.approx((-1.1, 3.1))
    assert (y0, y1) == pytest.approx((-2.1, 2.1))


def test_dots_have_their_classes_colour_in_every_panel():
    record = classes(3)
    ax = functions(record, max_draws=2)
    for axes in (ax, *ax.child_axes[:2]):
        dots = {line.get_label(): line for line in axes.lines}
        assert sorted(dots) == ["class 0", "class 1", "class 2"]
        for c in range(3):
            assert dots[f"class {c}"].get_color() == PALETTE[c]
            rows = record.data_inputs[record.data_targets == c]
            np.testing.assert_allclose(dots[f"class {c}"].get_xydata(), rows)


def test_many_classes_have_a_colour_each():
    ax = functions(classes(10, s=1), max_draws=0)
    inks = {line.get_label(): tuple(line.get_color()) for line in ax.lines}
    assert len(inks) == len(set(inks.values())) == 10


def test_labels_that_do_not_count_are_not_drawn():
    record = classes(3)
    record.data_targets[:5] = -100
    max_draws = [len(line.get_xdata()) for line in functions(record, max_draws=0).lines]
    assert sum(max_draws) == 25


def test_the_users_axes_keep_their_neighbours():
    figure = Figure(figsize=(14, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    right.plot([0, 1])
    assert functions(classes(), ax=left) is left
    figure.canvas.draw()
    assert left.get_tightbbox().x1 <= right.get_tightbbox().x0
    assert_readable(left)


# -- what cannot be drawn --------------------------------------------------------------------------


def test_other_functions_raise():
    two = FunctionsResult(GRID, *[torch.zeros(1, len(GRID), 1)] * 2, task="regression")
    with pytest.raises(ConfigError, match="got a regression of 2; give inputs of such a slice"):
        functions(two)
    one = FunctionsResult(X, torch.zeros(1, 41, 2), torch.zeros(41, 2))
    with pytest.raises(ConfigError, match="got a classification of 1"):
        functions(one)


def test_inputs_that_are_no_grid_raise():
    record = classes(data=False)
    with pytest.raises(DataError, match=r"regular grid, got 440 .*regular_grid"):
        functions(FunctionsResult(GRID[1:], record.draws[:, 1:], record.mean[1:]))
    twice = torch.cat([GRID[:1], GRID[:-1]])
    with pytest.raises(DataError, match="regular grid"):
        functions(FunctionsResult(twice, record.draws, record.mean))
