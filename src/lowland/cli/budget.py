"""`lowland budget`: what methods reach for what they cost, over several runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lowland import plots
from lowland.cli.console import Terminal, say
from lowland.cli.repeat import COMPARISON, DIFFERENCES, repeated, summary
from lowland.cli.run import execute
from lowland.cli.tables import metric_form, show_columns
from lowland.errors import ConfigError
from lowland.files import require_no_way_out, write_text
from lowland.records import Table
from lowland.records.table import SE, Forms
from lowland.runs.config import read_config
from lowland.runs.sections import Config, Repeat

DIFFERENCE = "_difference"  # the ending of columns of differences to the first method
_METRICS = ("accuracy", "rmse", "nll")
_COSTS: Forms = {
    "epochs": ("epochs", "{:.4g}"),
    "tuning_epochs": ("of them tuning", "{:.4g}"),
    "samples": ("forward passes", "{:.4g}"),
}
_PICTURES = {"epochs": "training-cost.png", "samples": "prediction-cost.png"}
_VALUES = 3  # of the key that changes, where the configuration names none


def budget(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.yaml|FOLDER",
            help="What to run; or a folder of finished runs, made by `lowland run` or this "
            "command, in which nothing is trained.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value]",
            help="Settings to put over it: repeat.values=5; budget=[1,1.25,1.5] is short for "
            "average.budget, with a row of SWA and SWAG for each number.",
        ),
    ] = None,
) -> None:
    """Compare what methods reach with what they cost, for three seeds or what `repeat` names.

    One table has the mean ± standard error of accuracy (or RMSE) and NLL, the paired differences
    to the first method, the epochs of training with those of tuning, and the forward passes per
    example. Two pictures draw the metrics against training cost and against prediction cost.

    Stop it at any moment; the same command goes on where it stopped.
    """
    if source.is_dir():
        if overrides:
            raise ConfigError(
                f"{source} is a folder of finished runs; leave out {overrides[0]}, or name the "
                "configuration."
            )
        folder, (means, pairs) = source, _finished(source)
    else:
        config = _repeat(read_config(source, [_full_key(each) for each in overrides or []]))
        folder = Path(config.out).expanduser()
        means, pairs = repeated(config, execute)
    _show(cost_table(means, pairs), folder / "budget", Terminal())


def cost_table(means: Table, pairs: Table) -> Table:
    """Metrics, their differences to the first method, and costs: a row a method.

    Args:
        means: over runs. pairs: means of the paired differences; empty for a single run, of which
            there are no standard errors either.

    >>> import torch
    >>> means = {"nll": torch.tensor([1.0, 0.5]), "nll_se": torch.tensor([0.25, 0.125])}
    >>> means = Table({"method": ["SGD", "SWA"], **means, "epochs": torch.tensor([6.0, 6.5])})
    >>> pairs = Table.from_rows([{"method": "SWA", "nll": -0.5, "nll_se": 0.0625}])
    >>> print(cost_table(means, pairs).to_texts().to_markdown())
    | method | NLL | nll_difference | epochs |
    | --- | ---: | ---: | ---: |
    | SGD | 1.0000 ± 0.2500 | - | 6 |
    | SWA | 0.5000 ± 0.1250 | -0.5 ± 0.062 | 6.5 |
    """
    differences = {row["method"]: row for row in pairs.rows()}
    rows: list[dict[str, Any]] = []
    for row in means.rows():
        entry = {"method": row["method"]} | _with_errors(row, _METRICS)
        if len(pairs):
            own = differences.get(row["method"], {})
            for name in _METRICS:
                if name in row:
                    entry[name + DIFFERENCE] = own.get(name, math.nan)
                    entry[name + DIFFERENCE + SE] = own.get(name + SE, math.nan)
        rows.append(entry | _with_errors(row, _COSTS))
    return Table.from_rows(rows)


def _with_errors(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """These columns of a row, as far as it has them, with the standard errors that are known."""
    columns = {}
    for name in names:
        if name in row:
            columns[name] = row[name]
            if not math.isnan(error := row.get(name + SE, math.nan)):
                columns[name + SE] = error
    return columns


def _full_key(override: str) -> str:
    return f"average.{override}" if override.startswith("budget=") else override


def _repeat(config: Config) -> Config:
    """The configuration, with values of the key that changes, and without curves."""
    repeat = config.repeat or Repeat()
    if not repeat.each():
        repeat = repeat.model_copy(update={"values": _VALUES})
    return config.model_copy(update={"repeat": repeat, "connect": None})


def _finished(folder: Path) -> tuple[Table, Table]:
    """The means of the runs in a folder, and their paired differences."""
    require_no_way_out(folder)
    one, several = folder / "records" / COMPARISON, folder / COMPARISON
    file = several if several.is_file() else one
    table = Table.load(file) if file.is_file() else Table({})
    if "epochs" not in table.columns:
        raise ConfigError(
            f"{folder} holds no {COMPARISON} with costs; name a configuration, or the folder of a "
            "finished `lowland run` or `lowland budget`."
        )
    if file == one:
        return summary([table])
    pairs = folder / DIFFERENCES
    return table, Table.load(pairs) if pairs.is_file() else Table({})


def _show(table: Table, folder: Path, console: Console) -> None:
    """Prints the table, and writes it and the pictures into a folder."""
    forms = _forms(table)
    several = any(name.endswith(SE) for name in table.columns)
    title = "Metrics and costs" + (", mean ± standard error over runs" if several else "")
    show_columns(table, forms, title, console)
    if not several:
        say(
            console,
            "One run: no standard errors and no paired differences; repeat.values=3 makes three "
            "runs.",
        )
    readable = table.to_texts({"method": ("method", "{}"), **forms})
    write_text(folder / "table.csv", table.to_csv())
    write_text(folder / "table.md", readable.to_markdown() + "\n")
    write_text(folder / "table.tex", readable.to_latex() + "\n")
    for cost, file in _PICTURES.items():
        plots.save(plots.cost(table, cost=cost), folder / file)
    say(console, f"Table: {folder}/table.csv, .md and .tex")
    say(console, f"Pictures: {folder}/{', '.join(_PICTURES.values())}")


def _forms(table: Table) -> Forms:
    """Headings and formats of the columns, in their order."""
    forms: dict[str, tuple[str, str]] = {}
    for name in _METRICS:
        title, signed = metric_form(name, sign="+")
        forms[name] = metric_form(name)
        forms[name + DIFFERENCE] = f"{title} - {table.method[0]}", signed
    forms |= _COSTS
    return {name: forms[name] for name in table.columns if name in forms}
