"""The registry of metrics: each is declared once, for tables, the command line and plots.

`predict` computes `nll`, `accuracy` and others. A registered metric is the mean of a function of
each example, and appears wherever these do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lowland.errors import ConfigError

KINDS = ("classification", "language", "regression")
TABLES = ("run", "test", "difference")


@dataclass(frozen=True)
class Metric:
    r"""A metric: its name, which value is best, and how it is computed.

    Args:
        name: the name in records and columns.
        title: the heading of a column.
        label: the label of an axis, without the unit; None: the title.
        unit: "nats" or "fraction"; "": none.
        best: "min" or "max"; None: neither is better.
        form: the format of a printed value, for `str.format`.
        tasks: the kinds of task that have it: "classification", "language", "regression".
        tables: the tables of the command line that show it: "run", the comparison of a run, which
            has the metrics of `Predictive.metrics`; "test" and "difference", those of several runs.
        function: the metric is \(\tfrac1N \sum_n f_n\), summed in float64. For classification,
            f(probs, labels) -> (M,) of probabilities (M, C) and labels (M,) of the examples that
            count; with independent labels both are (M, L). For regression, f(mean, variance,
            target) -> (N, D) of the predictive mean and total variance in the target's units.
            None: the library computes it.

    Raises:
        ConfigError: an unknown direction, kind of task or table.

    >>> Metric("top2", "top-2", best="max", unit="fraction").axis()
    'top-2 (fraction)'
    """

    name: str
    title: str
    label: str | None = None
    unit: str = ""
    best: str | None = "min"
    form: str = "{:.4f}"
    tasks: tuple[str, ...] = KINDS[:2]
    tables: tuple[str, ...] = TABLES
    function: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if self.best not in ("min", "max", None):
            raise ConfigError(f"best: expected 'min', 'max' or None, got {self.best!r}.")
        for field, choices in (("tasks", KINDS), ("tables", TABLES)):
            if unknown := set(getattr(self, field)) - set(choices):
                raise ConfigError(
                    f"{field}: expected some of {', '.join(choices)}, got {', '.join(unknown)}."
                )

    def axis(self, *, percent: bool = False) -> str:
        """The text of an axis: label and unit; `percent`: a fraction is in percent."""
        unit = "%" if percent and self.unit == "fraction" else self.unit
        return f"{self.label or self.title} ({unit})" if unit else self.label or self.title


_REGRESSION = ("regression",)


def register_metric(metric: Metric) -> Metric:
    """Adds a metric to predictions, tables, the command line and plots.

    It replaces a registered metric of the same name, so that a notebook's cell can run again.

    Raises:
        ConfigError: the name of a metric of the library.

    >>> register_metric(Metric("nll", "log loss"))
    Traceback (most recent call last):
    lowland.errors.ConfigError: metric: 'nll' is one of the library's own; take another name.
    """
    if metric.name in _OWN:
        raise ConfigError(
            f"metric: {metric.name!r} is one of the library's own; take another name."
        )
    _METRICS[metric.name] = metric
    return metric


def metrics(kind: str | None = None, *, table: str | None = None) -> list[Metric]:
    """The metrics of a kind of task in a table, in order; None: of all kinds, in all tables.

    >>> [metric.name for metric in metrics("classification", table="run")]
    ['accuracy', 'nll', 'ece', 'brier']
    """
    return [
        metric
        for metric in _METRICS.values()
        if (kind is None or kind in metric.tasks) and (table is None or table in metric.tables)
    ]


def metric_names(kind: str | None = None, *, table: str | None = "run") -> tuple[str, ...]:
    """The names of `metrics`; by default those that `Predictive.metrics` returns."""
    return tuple(metric.name for metric in metrics(kind, table=table))


def metric_of(name: str) -> Metric | None:
    """The metric of a column; None where the column is no metric.

    A column's name may continue after an underscore, with a condition or a data set.

    >>> metric_of("nll_corrupted").title, metric_of("auroc_mnist").best, metric_of("seconds")
    ('NLL', 'max', None)
    """
    while name not in _METRICS and "_" in name:
        name = name.rpartition("_")[0]
    return _METRICS.get(name)


def axis_of(name: str, *, percent: bool = False) -> str:
    """The text of an axis for a column: its metric's label and unit, or else its name.

    >>> axis_of("nll"), axis_of("error", percent=True), axis_of("norm")
    ('negative log-likelihood (nats)', 'error (%)', 'norm')
    """
    metric = _METRICS.get(name)
    return name if metric is None else metric.axis(percent=percent)


def _coverage(name: str, level: int, table: str) -> Metric:
    return Metric(
        name,
        f"{level}% cover",
        f"targets in the {level}% interval",
        "fraction",
        best=None,
        form="{:.3f}",
        tasks=_REGRESSION,
        tables=(table,),
    )


_OWN_METRICS = (
    Metric("accuracy", "accuracy", unit="fraction", best="max"),
    Metric("rmse", "RMSE", "root mean squared error", form="{:.4g}", tasks=_REGRESSION),
    Metric("nll", "NLL", "negative log-likelihood", "nats", tasks=KINDS),
    Metric(
        "nll_gaussian",
        "Gaussian NLL",
        "negative log-likelihood of the Gaussian",
        "nats",
        tasks=_REGRESSION,
        tables=("run",),
    ),
    Metric("ece", "ECE", "expected calibration error", "fraction"),
    Metric("brier", "Brier", "Brier score", tables=("run", "test")),
    Metric("aurc", "AURC", "area under the risk-coverage curve", tables=("test", "difference")),
    Metric(
        "crps",
        "CRPS",
        "continuous ranked probability score",
        form="{:.4g}",
        tasks=_REGRESSION,
        tables=("test", "difference"),
    ),
    _coverage("coverage", 95, "run"),
    *(_coverage(f"coverage_{level}", level, "test") for level in (50, 90, 95)),
    Metric(
        "width_90",
        "90% width",
        "mean width of the 90% interval",
        best=None,
        form="{:.4g}",
        tasks=_REGRESSION,
        tables=("test",),
    ),
    Metric("perplexity", "perplexity", form="{:.3f}", tasks=("language",), tables=("run", "test")),
    Metric("auroc", "AUROC", "area under the ROC curve", best="max", tables=()),
    Metric("fpr95", "FPR95", "false positive rate at 95% recall", "fraction", tables=()),
    Metric("loss", "loss", unit="nats", tasks=KINDS, tables=()),
    Metric("error", "error", unit="fraction", tables=()),
)
_METRICS: dict[str, Metric] = {metric.name: metric for metric in _OWN_METRICS}
_OWN = frozenset(_METRICS)
