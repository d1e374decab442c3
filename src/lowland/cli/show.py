"""Bars and tables in the terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable

from lowland.records import Table

SECONDS = 30.0  # between lines on the progress of a stage, where there is no terminal
# column of the record -> (heading, format); two tables, so that each fits 80 columns
_QUALITY = {
    "method": ("method", "{}"),
    "accuracy": ("accuracy", "{:.4f}"),
    "rmse": ("RMSE", "{:.4g}"),
    "nll": ("NLL", "{:.4f}"),
    "nll_gaussian": ("Gaussian NLL", "{:.4f}"),
    "ece": ("ECE", "{:.4f}"),
    "brier": ("Brier", "{:.4f}"),
    "coverage": ("95% cover", "{:.3f}"),
    "perplexity": ("perplexity", "{:.3f}"),
    "temperature": ("T", "{:.2f}"),
    "nll_tempered": ("NLL at T", "{:.4f}"),
}
_COST = {
    "method": ("method", "{}"),
    "scale": ("scale", "{:.2f}"),
    "samples": ("networks", "{:.0f}"),
    "epochs": ("epochs", "{:.0f}"),
    "train_seconds": ("train s", "{:.1f}"),
    "predict_seconds": ("predict s", "{:.2f}"),
}
_BEST = {"accuracy": max, "rmse": min, "nll": min, "ece": min, "brier": min, "nll_tempered": min}
_BEST |= {"nll_gaussian": min, "perplexity": min}


class Bars:
    """Progress bars with the time left, one a stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def add(self, label: str) -> Callable[[int, int | None], None]:
        """A bar for a stage, in files a line now and then: call the result with (done, total)."""
        if not self._console.is_terminal:
            return self._lines(label)
        task = self._bars.add_task(label, total=None)
        return lambda done, total: self._bars.update(task, completed=done, total=total)

    def _lines(self, label: str) -> Callable[[int, int | None], None]:
        began = told = time.monotonic()
        last = 0

        def report(done: int, total: int | None) -> None:
            nonlocal told, last
            now = time.monotonic()
            if done > last and (done == total or now - told >= SECONDS):
                told, last = now, done
                of = "" if total is None else f" of {total}"
                self._console.print(f"{label}: {done}{of}, {now - began:.0f} s", highlight=False)

        return report


def show(table: Table, console: Console) -> None:
    """Prints a comparison: how good on test data, the best of a column bold, and what it cost."""
    _print(table, _QUALITY, "Test data (scale and T chosen on validation data)", console)
    _print(table, _COST, "Cost (networks: forward passes a prediction)", console)


def _print(table: Table, columns: dict[str, tuple[str, str]], title: str, console: Console) -> None:
    names = [name for name in columns if name in table.columns]
    best = {n: _BEST[n](table.columns[n].tolist()) for n in names if n in _BEST}
    out = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in names:
        justify: Any = "left" if name == "method" else "right"
        out.add_column(columns[name][0], justify=justify, no_wrap=True)
    for row in table.rows():
        out.add_row(*[_cell(columns[name][1], row[name], best.get(name)) for name in names])
    console.print(out)


def _cell(form: str, value: Any, best: float | None) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "-"
    if isinstance(value, float) and abs(value) >= 1e5:
        form = "{:.4g}"
    text = form.format(value)
    return f"[bold]{text}[/bold]" if value == best else text


def show_repeated(table: Table, title: str, console: Console) -> None:
    """Prints means ± standard errors over runs, and paired differences to the first method."""
    first = next(iter(table.rows()))["method"]
    for text, ending, sign in ((title, "", ""), (f"Difference to {first}", "_difference", "+")):
        out = RichTable(title=text, title_justify="left", box=SIMPLE_HEAD)
        out.add_column("method", no_wrap=True)
        names = [n for n in _QUALITY if n != "method" and f"{n}_error" in table.columns]
        for name in names:
            out.add_column(_QUALITY[name][0], justify="right", no_wrap=True)
        for row in table.rows():
            if ending and row["method"] == first:
                continue
            cells = [
                _with_error(row[name + ending], row[f"{name}{ending}_error"], sign)
                for name in names
            ]
            out.add_row(row["method"], *cells)
        console.print(out)


def _with_error(mean: float, error: float, sign: str = "") -> str:
    """A mean with the digits that its standard error leaves it.

    >>> _with_error(2.47512, 0.0712), _with_error(-0.5, float("nan"), "+")
    ('2.475 ±0.071', '-0.5')
    """
    if not math.isfinite(mean) or not math.isfinite(error) or error <= 0:
        return f"{mean:{sign}.4g}" if math.isfinite(mean) else "-"
    digits = max(1 - math.floor(math.log10(error)), 0)
    return f"{mean:{sign}.{digits}f} ±{error:.{digits}f}"
