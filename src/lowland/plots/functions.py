"""Functions drawn from a posterior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowland import checks
from lowland.errors import ConfigError, DataError
from lowland.plots.overlays import letters_across, words_below
from lowland.plots.panels import panels
from lowland.plots.style import (
    INK,
    MUTED,
    PALETTE,
    SMALL,
    by_label,
    canvas,
    colour,
    colours_of,
    halo,
    numbers,
)
from lowland.records import FunctionsResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 0.06  # between panels, in their widths
PALE, DEEP = (
    0.12,
    0.62,
)  # opacities of a class's colour, for the lowest and the highest probability


def functions(
    record: FunctionsResult | Mapping[str, FunctionsResult],
    *,
    ax: Axes | None = None,
    max_draws: int | None = None,
    target: int = 0,
    sigmas: float = 2.0,
    noise: bool = True,
) -> Axes:
    """Draws the functions of a posterior over weights, for one or two inputs.

    Regression of one input: draws as thin lines, their average with a band of standard deviations,
    and the data as dots; several records by name are panels of one scale, as Izmailov et al. (2019)
    set subspaces side by side, with `sigmas=3`. Classification of two inputs, on a regular
    grid: the average's probability of the second class, or with more classes the most likely one,
    paler where it is less probable, and beside it single draws. Contours are decision boundaries.

    Args:
        max_draws: number of draws; None: all lines, or 3 panels. target: the regression target.
        sigmas: half the band's width, in standard deviations.
        noise: whether the band has the total variance, of new targets, or that of the draws, of
            the function alone.

    Raises:
        ConfigError: functions of other numbers of inputs.

    >>> import torch
    >>> x = torch.linspace(-1, 1, 5)[:, None]
    >>> draws = torch.stack([x, 2 * x])
    >>> record = FunctionsResult(x, draws, draws.mean(0), torch.ones(5, 1), task="regression")
    >>> [text.get_text() for text in functions(record).get_legend().get_texts()]
    ['2 draws', 'average ± 2 sd']
    """
    records = by_label(record)
    lines = all(
        result.task == "regression" and result.inputs.shape[1] == 1 for result in records.values()
    )
    if lines:
        sigmas = checks.number("sigmas", sigmas, above=0)
        band = _BandOptions(max_draws, target, sigmas, noise)
        if isinstance(record, Mapping):
            return _draw_row(records, band, ax=ax)
        return _draw_lines(record, band, ax=ax)
    first, *others = records.values()
    if others:
        raise ConfigError("functions: several records have panels for regressions of 1 input only.")
    d = first.inputs.shape[1]
    if first.task == "classification" and d == 2:
        return _draw_decisions(first, ax=ax, max_draws=3 if max_draws is None else max_draws)
    raise ConfigError(
        f"functions: expected a regression of 1 input or a classification of 2, got a "
        f"{first.task} of {d}; give inputs of such a slice, or draw the record's numbers yourself."
    )


class _BandOptions(NamedTuple):
    """Options of pictures over one input."""

    max_draws: int | None
    target: int
    sigmas: float
    noise: bool

    def around(self, record: FunctionsResult) -> tuple[np.ndarray | None, str]:
        """Half the band's width, (n,), and the average's name in the legend."""
        if self.noise and record.variance is None:
            return None, "average"
        values = record.variance if self.noise else None
        if values is None:  # without the draws' noise
            values = record.draws.double().var(0, correction=0)
        half_width = self.sigmas * np.sqrt(numbers(values)[:, self.target])
        return half_width, f"average ± {self.sigmas:g} sd" + ("" if self.noise else " of the draws")


def _draw_lines(record: FunctionsResult, band: _BandOptions, *, ax: Axes | None) -> Axes:
    """Draws over one input."""
    with canvas(ax) as ax:
        _draw_record(ax, record, band)
        ax.margins(x=0)
        # beside the axes: inside, some line runs through it
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def _draw_row(
    records: Mapping[str, FunctionsResult], band: _BandOptions, *, ax: Axes | None
) -> Axes:
    """Panels in a row, of one scale."""
    n = len(records)
    with canvas(ax, size=(max(2.7 * n + 0.8, 4.6), 3.4), room=(0.16, 0)) as ax:
        row = _row_of_panels(ax, n)
        for axes, (name, record) in zip(row, records.items(), strict=True):
            _draw_record(axes, record, band)
            above: Any = {"xytext": (0, 4), "textcoords": "offset points", "va": "bottom"}
            axes.annotate(name, (0, 1), xycoords="axes fraction", color=INK, **above)
            axes.margins(x=0)
        for axes in row[1:]:
            axes.set_ylabel("")
        if len({len(result.draws[: band.max_draws]) for result in records.values()}) > 1:
            ax.lines[0].set_label("draws")  # the legend is of all panels
        words_below(ax, "", width=letters_across(ax))
    return ax


def _draw_record(ax: Axes, record: FunctionsResult, band: _BandOptions) -> None:
    """One record's lines, band and dots."""
    outputs = record.mean.shape[1]
    target = checks.whole("target", band.target, least=0, most=outputs - 1)
    x = numbers(record.inputs)[:, 0]
    order = np.argsort(x, kind="stable")
    x, draws = x[order], numbers(record.draws)[:, order, target]
    draws = draws if band.max_draws is None else draws[: band.max_draws]
    mean = numbers(record.mean)[order, target]
    for i, draw in enumerate(draws):
        label = f"{len(draws)} draws" if not i else "_draw"
        style: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.45, "zorder": 2}
        ax.plot(x, draw, color=colour(5), label=label, **style)
    half_width, label = band.around(record)
    if half_width is not None:
        pale: dict[str, Any] = {"alpha": 0.15, "linewidth": 0, "zorder": 1}
        ax.fill_between(
            x, mean - half_width[order], mean + half_width[order], color=colour(0), **pale
        )
    ax.plot(x, mean, color=colour(0), linewidth=2.2, label=label, zorder=3)
    if record.data_inputs is not None and record.data_targets is not None:
        inputs = numbers(record.data_inputs)[:, 0]
        y = numbers(record.data_targets).reshape(len(inputs), -1)[:, target]
        dot: dict[str, Any] = {"markersize": 3.5, "markeredgecolor": "white"}
        ax.plot(inputs, y, "o", color=INK, markeredgewidth=0.4, label="data", zorder=4, **dot)
    ax.set(xlabel="input", ylabel="target" if outputs == 1 else f"target {target}")


def _draw_decisions(record: FunctionsResult, *, ax: Axes | None, max_draws: int) -> Axes:
    """Panels in a row: the average, then single draws."""
    x, y, places = _grid(numbers(record.inputs))
    panel_probs = [record.mean, *record.draws[: max(max_draws, 0)]]
    names = ["average", *(f"draw {i}" for i in range(1, len(panel_probs)))]
    classes = record.mean.shape[1]
    n = len(panel_probs)
    room = (0.2, 0.16 if classes == 2 else 0)
    wide = max(2.9 * n + 1.0, 4.6)
    with canvas(ax, size=(wide, 3.4 + 0.1 * max(classes - 4, 0)), room=room) as ax:
        row = _row_of_panels(ax, n)
        for axes, probs, name in zip(row, panel_probs, names, strict=True):
            filled = _fill(axes, x, y, numbers(probs)[places])
            axes.grid(False)
            axes.annotate(
                name,
                (0.0, 1.0),
                xycoords="axes fraction",
                xytext=(5, -4),
                textcoords="offset points",
                va="top",
                color=INK,
                fontsize=SMALL,
                path_effects=halo(2.5),
                zorder=4,
            )
            _dots(axes, record)
        ax.set(
            xlabel="first input",
            ylabel="second input",
            xlim=(x[0], x[-1]),
            ylim=(y[0], y[-1]),
        )
        ax.locator_params(nbins=5)
        if classes == 2:
            last = row[-1]
            bar = ax.figure.colorbar(filled, cax=last.inset_axes((1.05, 0, 0.06, 1)))
            bar.outline.set_edgecolor(MUTED)
            bar.ax.tick_params(length=0, labelcolor=INK, labelsize=SMALL)
            bar.set_label("probability of class 1")
            bar.set_ticks([0.0, 0.25, 0.5, 0.75, 1.0])
        words = "" if classes == 2 else "paler where the class is less probable"
        words_below(ax, words, width=int(13 * (wide - 1)))
    return ax


def _row_of_panels(ax: Axes, count: int) -> list[Axes]:
    """Panels side by side; the first has the labels of y."""
    share = 1 / (count + GAP * (count - 1))
    boxes = [(i * (1 + GAP) * share, 0.0, share, 1.0) for i in range(count)]
    row = panels(ax, boxes, sharex=ax, sharey=ax)
    for axes in row[1:]:
        axes.tick_params(labelleft=False, color=MUTED, labelsize=SMALL, labelcolor=INK)
    return row


def _grid(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The grid's coordinates, and which input is at each point of it, (m, n)."""
    x, across = np.unique(inputs[:, 0], return_inverse=True)
    y, up = np.unique(inputs[:, 1], return_inverse=True)
    places = np.full((len(y), len(x)), -1)
    places[up, across] = np.arange(len(inputs))
    if len(inputs) != places.size or (places < 0).any() or min(places.shape) < 2:
        raise DataError(
            f"inputs: expected a regular grid, got {len(inputs)} of {len(x)} different first and "
            f"{len(y)} second coordinates; make them by lowland.evaluate.regular_grid(rows)."
        )
    return x, y, places


def _fill(ax: Axes, x: np.ndarray, y: np.ndarray, probs: np.ndarray) -> Any:  # (m, n, C)
    """Probabilities as colours, with decision boundaries."""
    from matplotlib.colors import to_rgb

    boundary: dict[str, Any] = {"colors": INK, "linewidths": 1.0, "zorder": 2}
    if probs.shape[2] == 2:
        p = probs[:, :, 1]
        if p.min() < 0.5 < p.max():
            ax.contour(x, y, p, [0.5], **boundary)
        return ax.contourf(x, y, p, np.linspace(0, 1, 21), cmap=_two_classes(), zorder=1)
    likeliest, confidence = probs.argmax(2), probs.max(2)
    colours = np.array([to_rgb(ink) for ink in _inks(probs.shape[2])])
    least = 1 / probs.shape[2]
    depth = PALE + (DEEP - PALE) * np.clip((confidence - least) / (1 - least), 0, 1)[..., None]
    image = 1 - depth * (1 - colours[likeliest])
    edges = [(z[0] - (z[1] - z[0]) / 2, z[-1] + (z[-1] - z[-2]) / 2) for z in (x, y)]
    for c in np.unique(likeliest):
        margin = np.delete(probs, c, 2).max(2) - probs[:, :, c]
        if margin.min() < 0 < margin.max():
            ax.contour(x, y, margin, [0.0], **boundary)
    return ax.imshow(image, origin="lower", extent=(*edges[0], *edges[1]), aspect="auto", zorder=1)


def _inks(classes: int) -> list[Any]:
    """A colour a class: the palette's, of many classes more."""
    if classes <= len(PALETTE):
        return [colour(c) for c in range(classes)]
    return list(map(tuple, colours_of("tab10" if classes <= 10 else "tab20", classes)))


def _two_classes() -> Any:
    """From the first class's colour over white to the second's."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    ends: Any = (1 - DEEP * (1 - np.array(to_rgb(ink))) for ink in PALETTE[:2])
    first, second = map(tuple, ends)
    return LinearSegmentedColormap.from_list("two", [first, "#ffffff", second])


def _dots(ax: Axes, record: FunctionsResult) -> None:
    """The data, a colour a class."""
    if record.data_inputs is None or record.data_targets is None:
        return
    xy, labels = numbers(record.data_inputs), numbers(record.data_targets).reshape(-1)
    inks = _inks(record.mean.shape[1])
    for c in np.unique(labels).astype(int).tolist():
        if not 0 <= c < len(inks):  # ignored examples
            continue
        is_class = labels == c
        dot: dict[str, Any] = {"markersize": 3.5, "markeredgecolor": "white"}
        ax.plot(*xy[is_class].T, "o", color=inks[c], label=f"class {c}", zorder=3, **dot)
