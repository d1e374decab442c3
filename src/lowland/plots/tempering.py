"""Metrics against the temperature and the prior scale."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError, DataError
from lowland.metrics import metric_of
from lowland.plots.overlays import letters_across, words_below
from lowland.plots.scales import log_ticks, log_where_wide
from lowland.plots.style import INK, canvas, colour, dashes, numbers
from lowland.records import TemperingResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def tempering(record: TemperingResult, *, ax: Axes | None = None, metric: str = "nll") -> Axes:
    """Draws a metric of validation examples against the temperature, a line a prior scale.

    The best pair has a ring, and is in the caption. Bars are standard errors, where the record has
    them. Both axes are logarithmic where values span more than a factor of 20.

    Args:
        metric: "nll", or the record's second metric: "rmse" or "error", in percent.

    >>> import torch
    >>> columns = torch.tensor([1.0, 10.0, 100.0]), torch.ones(3), torch.tensor([0.5, 0.25, 0.75])
    >>> axes = tempering(TemperingResult(*columns, best=1))
    >>> axes.texts[0].get_text()
    'chosen: temperature 10, prior sd 1 (0.25 nats)'
    """
    metrics = ["nll"] if record.second_metric is None else ["nll", record.second_metric_name]
    if metric not in metrics:
        raise ConfigError(f"metric: expected one of {', '.join(metrics)}, got {metric!r}.")
    values = record.nll if metric == "nll" or record.second_metric is None else record.second_metric
    unit = 100 if metric == "error" else 1
    y, x, scales = (numbers(v) for v in (values, record.temperatures, record.prior_scales))
    y = np.where(np.isfinite(y), unit * y, np.nan)
    finite = y[~np.isnan(y)]
    if not len(finite):
        raise DataError(f"{metric}: all values are NaN or infinite; try other temperatures.")
    with canvas(ax, room=(0.15, 0)) as ax:
        for i, scale in enumerate(np.unique(scales)):
            rows = np.flatnonzero(scales == scale)
            rows = rows[np.argsort(x[rows], kind="stable")]
            style: dict[str, Any] = {"color": colour(i), "linewidth": 2, "label": _prior(scale)}
            ax.plot(x[rows], y[rows], dashes(i), marker="o", markersize=4.5, **style)
            if metric == "nll" and record.nll_se is not None:
                far = numbers(record.nll_se)[rows]
                bars: dict[str, Any] = {
                    "fmt": "none",
                    "ecolor": colour(i),
                    "elinewidth": 1,
                    "capsize": 2,
                }
                ax.errorbar(x[rows], y[rows], far, **bars)
        best = record.best
        ring: dict[str, Any] = {"markersize": 11, "markeredgewidth": 1.5, "zorder": 4}
        ax.plot(x[best], y[best], "o", color=INK, markerfacecolor="none", label="chosen", **ring)
        ax.margins(x=0.05)
        if x.min() > 0 and x.max() > x.min():
            log_ticks(ax, "x", x)
        log_where_wide(ax, "y", y)
        ax.set(xlabel="temperature", ylabel=f"validation {_axis_label(metric)}")
        words_below(ax, _caption(record, metric, float(y[best])), width=letters_across(ax))
    return ax


def _axis_label(name: str) -> str:
    """The metric's title, in percent where it is a fraction."""
    metric = metric_of(name)
    assert metric is not None
    return replace(metric, label=None).axis(percent=True)


def _prior(scale: float) -> str:
    return f"prior sd {scale:.3g}" if np.isfinite(scale) else "flat prior"


def _caption(record: TemperingResult, metric: str, best: float) -> str:
    """The best pair, and the cost."""
    value = f"{best:.4g}" + {"nll": " nats", "error": "%"}.get(metric, "")
    words = [f"chosen: temperature {record.temperature:g}, {_prior(record.prior_scale)} ({value})"]
    words += [f"averages of {record.samples:,} samples"] if record.samples else []
    words += [f"{record.evaluations:,} evaluations"] if record.evaluations else []
    return "; ".join(words)
