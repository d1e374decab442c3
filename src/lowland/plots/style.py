"""The style of all figures, and `save`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError, DataError, LowlandError
from lowland.files import PathLike, atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

# Okabe and Ito's colours, which colour-blind readers distinguish; their yellow is too pale on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, MUTED, PALE, FAINT = "#262626", "#6b6b6b", "#999999", "#e8e8e8"
NEEDED = 'figures need matplotlib: pip install "lowland[plots]".'
SMALL = 9.0  # points, of labels inside the axes

HOUSE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "text.color": INK,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "lines.solid_capstyle": "round",
}


def colour(i: int) -> str:
    """The i-th colour of the palette, which starts again after its last."""
    return PALETTE[i % len(PALETTE)]


def dashes(i: int) -> str:
    """Solid for the palette's first round, dashed for the next, and so on."""
    return ("-", "--", "-.", ":")[i // len(PALETTE) % 4]


def colours_of(cmap: str, count: int) -> np.ndarray:  # -> (count, 4)
    """That many colours of one of matplotlib's maps, equally spaced from end to end."""
    try:
        from matplotlib import colormaps
    except ImportError as error:
        raise LowlandError(NEEDED) from error
    if cmap not in colormaps:
        raise ConfigError(
            f"cmap: expected one of matplotlib's, such as 'viridis' or 'jet_r', got {cmap!r}."
        )
    return np.asarray(colormaps[cmap](np.linspace(0, 1, count)))


def halo(width: float) -> list[Any]:
    """A white rim around a text or line, which makes it readable on any colour."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=width, foreground="white"), Normal()]


def numbers(tensor: Tensor) -> np.ndarray:
    """A tensor of any dtype and device as float64."""
    return tensor.detach().cpu().double().numpy()


def by_label(record: Any) -> dict[str, Any]:
    """Records by label; one alone has the label ""."""
    records = dict(record) if isinstance(record, Mapping) else {"": record}
    if not records:
        raise DataError("expected a record or a dict of records, got an empty dict; give one.")
    return records


def merge_equal(curves: Mapping[str, Any]) -> dict[str, Any]:
    """Equal arrays, or equal tuples of arrays, once, by their names joined: one line would hide
    the other.

    >>> merge_equal({"SGD": np.ones(2), "EMA": np.zeros(2), "SWA": np.ones(2)}).keys()
    dict_keys(['SGD = SWA', 'EMA'])
    >>> merge_equal({name: 1.0 for name in "ABCDE"}).keys()
    dict_keys(['A = B = 3 more'])
    """
    groups: list[tuple[list[str], Any]] = []
    for name, curve in curves.items():
        for names, other in groups:
            if _equal(curve, other):
                names.append(name)
                break
        else:
            groups.append(([name], curve))
    return {_joined_by_equals(names): curve for names, curve in groups}


def _joined_by_equals(names: list[str]) -> str:
    more = [] if len(names) <= 4 else [f"{len(names) - 2} more"]
    return " = ".join([*(names[:2] if more else names), *more])


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return all(map(_equal, a, b))
    return bool(np.array_equal(a, b, equal_nan=True))


@contextmanager
def canvas(
    ax: Axes | None,
    *,
    size: tuple[float, float] = (6.4, 4.0),
    projection: str | None = None,
    room: tuple[float, float] | None = None,
) -> Iterator[Axes]:
    """The axes to draw on, with a light grid: yours, or new ones in the house style.

    Args:
        size: of a new figure, in inches. projection: of new axes, such as "3d"; yours must have it
            already. room: shares of your axes for what is drawn below and beside them, by which
            they become smaller where no layout engine makes room.

    New axes have a figure of their own, independent of pyplot and of displays. Yours keep their
    fonts; rcParams are as before afterwards.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LowlandError(NEEDED) from error
    with rc_context(HOUSE if ax is None else {}):
        if ax is None:
            figure = Figure(figsize=size, layout="constrained")
            FigureCanvasAgg(figure)
            ax = figure.add_subplot(projection=projection)
            # ticks are created when drawn, outside the context: set their style now
            ax.tick_params(which="both", color=MUTED, labelcolor=INK, labelsize=SMALL)
        elif room is not None:
            _make_room(ax, *room)
        light_grid(ax)
        yield ax


def light_grid(ax: Axes) -> None:
    """Pale lines at the ticks, below all else."""
    ax.grid(True, color=FAINT, linewidth=0.8)
    ax.set_axisbelow(True)


def _make_room(ax: Axes, below: float, beside: float) -> None:
    root: Any = ax.get_figure(root=True)
    if root.get_layout_engine() is None:
        x, y, wide, high = ax.get_position(original=True).bounds
        ax.set_position((x, y + below * high, (1 - beside) * wide, (1 - below) * high))
        ax.set_in_layout(True)


def save(artist: Axes | Figure, path: PathLike, *, dpi: float = 200) -> Path:
    """Writes a figure, or the whole figure that axes are part of, atomically; returns the path.

    The path's ending is the format: `.png`, `.svg`, `.pdf`; without one `.png`. No display is used.
    """
    path = Path(path)
    path = path if path.suffix else path.with_name(f"{path.name}.png")
    figure: Figure = artist.figure.canvas.figure
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:] not in formats:
        raise ConfigError(f"{path}: expected an ending of {', '.join(formats)}; give such a path.")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=dpi)
    return path
