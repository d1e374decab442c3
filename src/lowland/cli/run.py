"""`lowland run`: from a model and data to averages, posteriors and one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lowland.cli import subspaces
from lowland.cli.config import Config, Connect, read_config
from lowland.cli.connect import execute as join_networks
from lowland.cli.connection import Connection, Joining
from lowland.cli.console import Terminal, say
from lowland.cli.folder import RunFolder, versions
from lowland.cli.methods import Methods
from lowland.cli.modes import Modes
from lowland.cli.opened import Opened
from lowland.cli.pictures import draw_all
from lowland.cli.repeat import repeated
from lowland.cli.scan import View
from lowland.cli.scan import execute as draw_plane
from lowland.cli.setup import Setup
from lowland.cli.show import Bars, show
from lowland.cli.trust import remember
from lowland.core.threads import using_threads
from lowland.records import Table


def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="What to run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value]", help="Settings to put over it: out=FOLDER seed=1."),
    ] = None,
) -> None:
    """Train, average and compare: every method of the configuration, in one run folder.

    Stop it at any moment; the same command goes on where it stopped.
    """
    found = read_config(config, overrides or [])
    if found.repeat is not None and found.repeat.each():
        repeated(found, execute)
    else:
        execute(found.model_copy(update={"repeat": None}))


def execute(config: Config) -> Table:
    """Does what `lowland run` does for a checked configuration."""
    console = Terminal()
    folder = RunFolder(Path(config.out).expanduser())
    remember(config)
    setup = Setup(config)
    methods = Methods(Modes(setup, folder))
    methods.check()
    if "subspace" in config.methods and (told := subspaces.undiagnosed(config.subspace)):
        say(console, f"Note: {told}")
    with folder.claimed():
        ran = folder.found(config) or folder.begin(config, setup.threads())
        # as many threads as it started with, so that it ends with the same bits
        with using_threads(int(ran["threads"])):
            if ran.get("versions") != versions():
                began = ", ".join(f"{k} {v}" for k, v in ran.get("versions", {}).items())
                say(console, f"Began with {began}: its last bits may differ from here on.")
            _work(methods, console)
            table = methods.comparison()
            table.save(folder.record("comparison.json"))
            with console.status("pictures"):
                pictures = draw_all(methods)
            show(table, console)
            _left_out(methods, console)
            folder.event("done")
            say(console, f"Results: {folder.path}/")
            say(console, f"Pictures: {', '.join(pictures)}")
        if config.connect is not None and "ensemble" not in config.methods:
            say(console, "No curve: connect joins two networks of the method ensemble.")
        elif config.connect is not None:
            _join(setup, config.connect, folder, int(ran["threads"]))
        return table


def _join(setup: Setup, asked: Connect, folder: RunFolder, threads: int) -> None:
    """Joins the first two annealed networks, and draws the plane of the first curve."""
    run = Opened(folder.path.name, folder, setup.config, threads)
    joined = Connection(folder.path / "connect", [run], ("sgd-0", "sgd-1"), setup=setup)
    settings = asked.model_dump(exclude={"resolution"})
    settings |= {"kinds": tuple(asked.kinds), "epochs": asked.epochs or 0}
    join_networks(joined, Joining(**settings, seed=setup.config.seed))
    if asked.resolution:
        options = {"resolution": asked.resolution, "refine": 0.02, "count": asked.rows}
        place = joined.path / "plane"
        draw_plane(View.through(joined, joined.runs, None), options, "train", place)


def _left_out(methods: Methods, console: Console) -> None:
    """Says which simplexes have fewer vertices than were asked for, and what chains warned of."""
    if "subspace" in methods.config.methods:
        told = methods.modes.chain().about.get("told")
        if told:
            say(console, f"{methods.title('subspace')}: {told}")
    for i in range(max(methods.needs(method).simplexes for method in methods.config.methods)):
        if stopped := methods.modes.growth(i).stopped:
            say(console, f"Simplex {i + 1}: {stopped}")


def _work(methods: Methods, console: Console) -> None:
    """Trains and judges, with bars."""
    config, modes = methods.config, methods.modes
    needs = [methods.needs(method) for method in config.methods]
    walks, cycles = max(n.walks for n in needs), max(n.cycles for n in needs)
    for name in [f"swa-{i}" for i in range(walks)] + ["fge-0"] * cycles:
        if modes.lost(name):
            say(console, f"trajectory/{name} is gone: training {name} again.")
    with Bars(console) as bars:
        for i in range(max(n.annealed for n in needs)):
            modes.annealed(i, bars.add(f"SGD {i + 1}"))
        for i in range(walks):
            modes.walking(i, bars.add(f"SWA walk {i + 1}"))
        if cycles:
            modes.cyclical(bars.add("FGE cycles"))
        for i in range(max(n.simplexes for n in needs)):
            modes.simplex(i, bars.add(f"Simplex {i + 1}"))
        if any(n.chains for n in needs):
            modes.subspace(bars.add(f"sample: {methods.title('subspace')}"))
            modes.plane(bars.add("plane of the posterior"))
        for method in config.methods:
            methods.judge(method, bars.add(f"predict: {methods.title(method)}"))
