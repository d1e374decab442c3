"""`lowland connect`: curves of low loss between the networks of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lowland import checks
from lowland.artifacts import Graph
from lowland.artifacts.graph import complete
from lowland.cli.building import drawn, outline
from lowland.cli.connection import Connection
from lowland.cli.console import Terminal, say
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.show import Bars, show_figures
from lowland.cli.stage import names_in
from lowland.cli.trust import Trust
from lowland.core.threads import using_threads
from lowland.errors import ConfigError
from lowland.geometry import Line
from lowland.records import Table
from lowland.runs.curves import KINDS, Joining, joining_artifacts, joining_values
from lowland.runs.run import Run


def connect(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="A folder that `lowland run` made, or two that differ in the seed alone.",
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(metavar="KIND,...", help="Curves to fit, of bezier and chain."),
    ] = "bezier",
    ends: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="The weights to join, files of the run's weights/: sgd-0,sgd-1 without it, or "
            "sgd-0 of each of two runs.",
        ),
    ] = None,
    bends: Annotated[int, typer.Option(min=1, help="Free anchors of a curve.")] = 1,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Of fitting a curve: without it as many as a network's training."),
    ] = None,
    lr: Annotated[float, typer.Option(help="Of fitting; it falls from half of the budget on.")] = (
        0.05
    ),
    points: Annotated[int, typer.Option(min=3, help="Where curves are looked at.")] = 61,
    examples: Annotated[
        int, typer.Option(min=2, help="Training examples for the losses along the curves.")
    ] = 10_000,
    align: Annotated[
        bool,
        typer.Option(
            "--align",
            help="Add the straight line to the second network with its hidden units in the order "
            "that brings it nearest to the first.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where curves, records and pictures go: RUN/connect, or a folder `connect` beside "
            "the first of two.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the fit's batches.")] = 0,
    trust: Trust = False,
) -> None:
    """Join two networks by curves of low loss, and measure loss and error along them.

    Stop it at any moment; the same command goes on where it stopped.
    """
    kinds = tuple(dict.fromkeys(word.strip() for word in kind.split(",") if word.strip()))
    for word in kinds:
        if word not in KINDS or word == "line":
            raise ConfigError(f"--kind: expected some of bezier, chain, got {word!r}.")
    lr = checks.number("--lr", lr, above=0)
    joining = Joining(kinds, bends, epochs or 0, lr, points, examples, align, seed)
    execute(join(runs, ends, out, trust=trust), joining)


def join(
    runs: list[Path], ends: str | None, out: Path | None, *, trust: bool = False
) -> Connection:
    """Which networks are meant, and where their curves go."""
    if len(runs) > 2:
        raise ConfigError(f"expected one run or two, got {len(runs)}.")
    opened = load_runs(runs, trust=trust)
    first = opened[0].folder.path
    place = out or (first / "connect" if len(runs) == 1 else first.parent / "connect")
    return Connection(place.expanduser(), opened, _ends(opened, ends))


def execute(joined: Connection, joining: Joining) -> Table:
    """Does what `lowland connect` does."""
    console = Terminal()
    Line(*joined.ends())  # refused before anything is written
    joined.claim(joining_values(joining))
    run = Run(joined.setup.config, joined.setup)
    graph = Graph(joined.path, tell=lambda line: say(console, line))
    table, *pictures = joining_artifacts(run, joined.sources(), joining)
    targets = complete([table, *pictures])
    with using_threads(joined.runs[0].threads):
        outline(graph, targets, console)
        with Bars(console) as bars:
            graph.build(targets, bar=bars.of)
    curves: Table = graph.load(table)
    rows = graph.load(table.inputs[0]).examples
    names = " and ".join(joined.titles())
    title = f"Between {names} ({rows:,} training examples)"
    show_figures(curves, "curve", title, console, rows="curve")
    say(console, f"Results: {joined.path}/")
    say(console, f"Pictures: {', '.join(drawn(graph, targets))}")
    return curves


def _ends(runs: list[FinishedRun], ends: str | None) -> tuple[str, str]:
    words = [word.strip() for word in (ends or "").split(",") if word.strip()]
    if len(words) == 1 and len(runs) == 2:
        words *= 2
    if not words:
        words = ["sgd-0", "sgd-0" if len(runs) == 2 else "sgd-1"]
        there = names_in(runs[0].folder)
        if len(runs) == 1 and not set(words) <= set(there):
            raise ConfigError(
                f"{runs[0].folder.path} holds no two annealed networks, but {', '.join(there)}: "
                "name two of them with --ends, give a second run of another seed, or run the "
                "method ensemble."
            )
    if len(words) != 2:
        raise ConfigError(f"--ends: expected two names of weights, got {ends!r}.")
    return words[0], words[1]
