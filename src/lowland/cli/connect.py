"""`lowland connect`: curves of low loss between the networks of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lowland.artifacts.order import complete
from lowland.cli.arguments import out_option
from lowland.cli.console import Terminal
from lowland.cli.curve_folder import CurveFolder
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.options import Keys, with_section_options
from lowland.cli.stage_folder import one_for_each, words_of
from lowland.cli.tables import show_metrics
from lowland.cli.trust import Trust
from lowland.errors import ConfigError
from lowland.geometry import Line
from lowland.records import Table
from lowland.runs.curves import CurveOptions, curve_artifacts


@with_section_options
def connect(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="A folder that `lowland run` made, or two that differ in the seed alone.",
        ),
    ],
    options: Annotated[CurveOptions, Keys(but=("resolution",), names={"kinds": "--kind"})],
    ends: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Weights to join, files of the run's weights/. Default: sgd-0,sgd-1, or sgd-0 of "
            "each of two runs.",
        ),
    ] = None,
    out: Annotated[
        Path | None, out_option("RUN/connect, or `connect` beside the first of two runs")
    ] = None,
    trust: Trust = False,
) -> None:
    """Join two networks by curves of low loss, and measure loss and error along them.

    Stop it at any moment; the same command goes on where it stopped.
    """
    if len(runs) > 2:
        raise ConfigError(f"expected one run or two, got {len(runs)}.")
    finished_runs = load_runs(runs, trust=trust)
    path = out or CurveFolder.default_path(finished_runs)
    folder = CurveFolder(path, finished_runs, _end_names(finished_runs, ends))
    execute(folder, options)


def execute(folder: CurveFolder, options: CurveOptions) -> Table:
    """Builds the curves of a folder, and prints their losses."""
    Line(*folder.ends())  # raises before anything is written
    settings = options.model_dump(exclude={"resolution"})
    folder.claim(settings | {"epochs": options.epochs or 0})
    table, *pictures = curve_artifacts(folder.run, folder.sources(), options)
    builder = folder.builder(Terminal())
    builder.build(complete([table, *pictures]))
    curves: Table = builder.load(table)
    examples = builder.load(table.inputs[0]).examples
    names = " and ".join(folder.titles())
    title = f"Between {names} ({examples:,} training examples)"
    show_metrics(curves, "curve", title, builder.console, rows="curve")
    builder.say_results()
    return curves


def _end_names(runs: list[FinishedRun], ends: str | None) -> list[str]:
    """The names of the weights at the ends."""
    names = words_of(ends)
    if names and len(runs) == 2:
        return one_for_each(names, 2, option="--ends")
    if not names:
        names = ["sgd-0", "sgd-0" if len(runs) == 2 else "sgd-1"]
        available = runs[0].folder.weight_names()
        if len(runs) == 1 and not set(names) <= set(available):
            raise ConfigError(
                f"{runs[0].folder.path} holds no two annealed networks, but "
                f"{', '.join(available)}: name two of them with --ends, give a second run of "
                "another seed, or run the method ensemble."
            )
    if len(names) != 2:
        raise ConfigError(f"--ends: expected two names of weights, got {ends!r}.")
    return names
