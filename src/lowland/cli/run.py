"""`lowland run`: from a model and data to averages, posteriors and one table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from lowland.artifacts import Graph, Inputs
from lowland.cli.builder import Builder
from lowland.cli.connect import execute as connect_networks
from lowland.cli.console import Terminal, say
from lowland.cli.curve_folder import CurveFolder
from lowland.cli.load_runs import FinishedRun
from lowland.cli.repeat import repeated
from lowland.cli.scan import ScanOptions, make_view
from lowland.cli.scan import execute as draw_plane
from lowland.cli.tables import show_comparison
from lowland.cli.trust import remember
from lowland.records import Table
from lowland.runs.best import advice
from lowland.runs.chains import missing_diagnostics
from lowland.runs.config import read_config
from lowland.runs.curves import CurveOptions
from lowland.runs.folder import CONFIG, RunFolder, versions
from lowland.runs.plan import ExecutionPlan, RunPlan, plan_of
from lowland.runs.run import Run
from lowland.runs.sections import Config
from lowland.runs.setup import Setup
from lowland.runs.shape_sections import Connect


def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="What to run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value]", help="Settings to put over it: out=FOLDER seed=1."),
    ] = None,
) -> None:
    """Train, average and compare: every method of the configuration, in one run folder.

    Stop it at any moment; the same command goes on where it stopped. With other settings in the
    same folder, what depends on them is built again, and the rest is kept.
    """
    settings = read_config(config, overrides or [])
    if settings.repeat is not None and settings.repeat.each():
        repeated(settings, execute)
    else:
        execute(settings.model_copy(update={"repeat": None}))


def execute(config: Config) -> Table:
    """Builds the artifacts of a checked configuration, and prints its table."""
    console = Terminal()
    folder = RunFolder(Path(config.out).expanduser())
    remember(config)
    run = Run(config, Setup(config))
    for line in run.setup.notes:
        say(console, f"Note: {line}")
    run.check()
    if "subspace" in config.methods and (note := missing_diagnostics(config.subspace)):
        say(console, f"Note: {note}")
    folder.prepare()
    graph = Graph(folder.path, tell=lambda line: say(console, line))
    artifact = ExecutionPlan(run.setup)
    plan = plan_of(graph, artifact)
    _say_versions(folder, console)
    folder.write(config)
    builder = Builder(folder.path, console, threads=plan.threads)
    builder.build([artifact, *run.targets()])
    table: Table = builder.load(run.comparison())
    tuned = [name for method in run.methods for name in method.tuned]
    show_comparison(_with_seconds(table, run, builder.graph), console, tuned=tuned)
    for method in run.methods:
        inputs = Inputs(method.needs(run), builder.load)
        for note in method.notes(run, inputs):
            say(console, note)
    say(console, advice(builder.load(run.best())))
    folder.event("done")
    builder.say_results()
    if config.connect is not None and "ensemble" not in config.methods:
        say(console, "No curve: connect joins two networks of the method ensemble.")
    elif config.connect is not None:
        _connect(run.setup, config.connect, folder, plan)
    return table


def _with_seconds(table: Table, run: Run, graph: Graph) -> Table:
    """The table with the time that building took, which is no part of the stored one."""
    trained, predicted = [], []
    for method in run.methods:
        parts = run.parts(method)
        trained.append(sum(part.share * graph.seconds(part.artifact) for part in parts))
        predicted.append(graph.seconds(run.prediction(method)))
    columns = {
        "train_seconds": torch.tensor(trained, dtype=torch.float64),
        "predict_seconds": torch.tensor(predicted, dtype=torch.float64),
    }
    return replace(table, columns=table.columns | columns)


def _say_versions(folder: RunFolder, console: Console) -> None:
    """Prints a note where other versions began the run."""
    if not (folder.path / CONFIG).is_file():
        return
    _, environment = folder.read()
    if environment.get("versions") != versions():
        names = ", ".join(f"{k} {v}" for k, v in environment.get("versions", {}).items())
        say(console, f"Began with {names}: its last bits may differ from here on.")


def _connect(setup: Setup, settings: Connect, folder: RunFolder, plan: RunPlan) -> None:
    """Connects the first two annealed networks, and draws the plane of the first curve."""
    run = FinishedRun(folder.path.name, folder, setup.config, plan)
    names = ("sgd-0", "sgd-1")
    curves = CurveFolder(folder.path / "connect", [run], names, setup=setup)
    options = CurveOptions(**settings.model_dump(), seed=setup.config.seed)
    connect_networks(curves, options)
    if settings.resolution:
        grid = ScanOptions(resolution=settings.resolution, examples=settings.examples)
        draw_plane(make_view(curves, curves.runs, grid), grid, curves.path / "plane")
