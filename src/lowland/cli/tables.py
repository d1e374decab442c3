"""Tables of metrics in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text
from torch import Tensor

from lowland.cli.console import say, visible
from lowland.metrics import metric_names, metric_of
from lowland.records import Table
from lowland.records.table import Forms

_GAP = 3  # characters between columns
_COST: Forms = {
    "scale": ("scale", "{:.2f}"),
    "samples": ("networks", "{:.0f}"),
    "epochs": ("epochs", "{:.0f}"),
    "tuning_epochs": ("of them tuning", "{:.0f}"),
    "train_seconds": ("train s", "{:.1f}"),
    "predict_seconds": ("predict s", "{:.2f}"),
}
# of shapes, which are not ranked
_SHAPES: dict[str, Forms] = {
    "curve": {
        "loss_ends": ("loss at ends", "{:.4f}"),
        "loss_max": ("highest loss", "{:.4f}"),
        "barrier": ("barrier", "{:.4f}"),
        "error_max": ("highest error", "{:.4f}"),
        "test_loss_max": ("highest test loss", "{:.4f}"),
        "test_error_max": ("highest test error", "{:.4f}"),
        "length": ("length", "{:.1f}"),
    },
    "growth": {
        "log_volume": ("log volume", "{:.2f}"),
        "height": ("height", "{:.3g}"),
        "loss_mean": ("mean loss", "{:.4f}"),
        "loss_max": ("highest loss", "{:.4f}"),
        "test_nll_mean": ("mean test NLL", "{:.4f}"),
        "test_error_mean": ("mean test error", "{:.4f}"),
        "test_error_max": ("highest test error", "{:.4f}"),
        "test_rmse_mean": ("mean test RMSE", "{:.4g}"),
        "seconds": ("fit s", "{:.1f}"),
    },
    "sharpness": {
        "train_loss": ("train loss", "{:.4f}"),
        "train_error": ("train error", "{:.4f}"),
        "test_loss": ("test loss", "{:.4f}"),
        "test_error": ("test error", "{:.4f}"),
        "test_rmse": ("test RMSE", "{:.4g}"),
        "gradient_norm": ("gradient", "{:.2g}"),
        "keskar": ("Keskar (%)", "{:.3g}"),
        "sam": ("SAM", "{:.3g}"),
        "adaptive": ("adaptive", "{:.3g}"),
        "average": ("average", "{:.3g}"),
        "eigenvalue": ("eigenvalue", "{:.3g}"),
        "trace": ("trace", "{:.4g}"),
        "width": ("width", "{:.3g}"),
        "width_eigenvector": ("along eigenvector", "{:.3g}"),
        "width_swag": ("along SWAG", "{:.3g}"),
    },
}


def _columns(part: str, of: str) -> Forms:
    """What a table shows. `of`: the out-of-distribution set."""
    if part in _SHAPES:
        return _SHAPES[part]
    if part == "ood":
        return {f"{name}_{of}": metric_form(name) for name in ("auroc", "fpr95")}
    if part == "corrupted":
        return {f"{name}_corrupted": metric_form(name) for name in metric_names()}
    if part == "difference":
        columns = {name: metric_form(name, sign="+") for name in metric_names(table="difference")}
        return columns | {"nll_corrupted": ("corrupted NLL", "{:+.4f}")}
    if part == "test":
        columns = {name: metric_form(name) for name in metric_names(table="test")}
        return columns | {"crps_of": ("CRPS of", "{}"), "samples": ("networks", "{:.0f}")}
    sign = "+" if part == "run difference" else ""
    columns = {name: metric_form(name, sign=sign) for name in metric_names()}
    columns |= {"temperature": ("T", f"{{:{sign}.2f}}")}
    return columns | {"nll_tempered": ("NLL at T", f"{{:{sign}.4f}}")}


def metric_form(name: str, *, sign: str = "") -> tuple[str, str]:
    """The heading and the format of a metric's column. `sign`: "+", of differences."""
    metric = metric_of(name)
    assert metric is not None
    return metric.title, metric.form.replace("{:", f"{{:{sign}")


def show_comparison(table: Table, console: Console, *, tuned: Sequence[str] = ()) -> None:
    """Prints a comparison: metrics on test data, the best of a column bold, and the cost.

    `tuned`: columns of values that methods chose on validation data, beside scale and temperature.
    """
    choices = "scale and T" if "temperature" in table.columns else "scale"
    show_columns(
        table,
        _columns("run", ""),
        f"Test data ({choices} chosen on validation data)",
        console,
    )
    forms = {name: (name, "{:.4g}") for name in tuned} | _COST
    show_columns(table, forms, "Cost (networks: forward passes a prediction)", console)


def show_metrics(
    table: Table, part: str, title: str, console: Console, *, of: str = "", rows: str = "method"
) -> None:
    """Prints a part of a table of metrics.

    Columns of standard errors, which end with `_se`, stand behind their ±. `rows`: what they are.
    """
    show_columns(table, _columns(part, of), title, console, rows, ranked=part not in _SHAPES)


def show_columns(
    table: Table,
    forms: Forms,
    title: str,
    console: Console,
    rows: str = "method",
    *,
    ranked: bool = True,
) -> None:
    """Prints the columns of a table that are there, the best of each bold where it is `ranked`."""
    forms = {name: form for name, form in forms.items() if name in table.columns}
    columns = {}
    for name, (heading, texts) in zip(forms, table.to_texts(forms).columns.items(), strict=True):
        values = table.columns[name]
        judge = _best(name) if ranked and isinstance(values, Tensor) else None
        best = None if judge is None else judge(_finite(values))
        columns[heading] = [
            Text(
                text.replace(" ± ", "±"), style="bold" if best is not None and value == best else ""
            )
            for text, value in zip(texts, _plain(values), strict=True)
        ]
    print_table(columns, console, rows=rows, labels=table.method, title=title)


def print_table(
    columns: Mapping[str, Sequence[str | Text]],
    console: Console,
    *,
    rows: str,
    labels: Sequence[str],
    title: str = "",
) -> None:
    """Columns by heading, a row a label: in as many tables as the width needs, so that no number is
    cut; on a terminal that has no room for one column, a block a row.

    >>> from lowland.cli.console import Terminal
    >>> print_table({"NLL": ["0.1234"]}, Terminal(width=12), rows="method", labels=["SWAG"])
    SWAG
      NLL: 0.1234
    """
    labels = [visible(label) for label in labels]
    widths = {
        heading: max(cell_len(str(text)) for text in [heading, *texts]) + _GAP
        for heading, texts in columns.items()
    }
    most = console.width - max(map(cell_len, [*labels, rows])) - _GAP - 2
    if max(widths.values(), default=0) > most:
        _blocks(columns, console, labels, title)
        return
    groups: list[list[str]] = []
    room = 0
    for heading, width in widths.items():
        if room < width or not groups:
            groups.append([])
            room = most
        groups[-1].append(heading)
        room -= width
    for i, group in enumerate(groups):
        above = title if i == 0 else None
        out = RichTable(title=above or None, title_justify="left", box=SIMPLE_HEAD)
        out.add_column(rows, no_wrap=True)
        for heading in group:
            out.add_column(heading, justify="right", no_wrap=True)
        for label, *texts in zip(labels, *(columns[heading] for heading in group), strict=True):
            out.add_row(label, *texts)
        console.print(out)


def _blocks(
    columns: Mapping[str, Sequence[str | Text]],
    console: Console,
    labels: Sequence[str],
    title: str,
) -> None:
    if title:
        say(console, title)
    for i, label in enumerate(labels):
        say(console, label)
        for heading, texts in columns.items():
            say(console, f"  {heading}: {texts[i]}")


def _best(name: str) -> Any:
    """How the best of a column is found; None where no value is better than another."""
    metric = metric_of(name)
    return {"min": min, "max": max}.get(metric.best or "") if metric is not None else None


def _finite(values: Tensor) -> list[float]:
    return [value for value in values.tolist() if not math.isnan(value)] or [math.nan]


def _plain(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, Tensor) else values
