"""`lowland connect`: curves of low loss between the networks of finished runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from lowland import checks, plots
from lowland.cli.connection import KINDS, TITLES, Connection, Joining
from lowland.cli.console import Terminal, say
from lowland.cli.opened import Opened, open_runs
from lowland.cli.show import Bars, show_figures
from lowland.cli.stage import names_in
from lowland.cli.trust import Trust
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, StoreError
from lowland.geometry import Curve, Line
from lowland.landscape import path as along
from lowland.records import PathResult, Table
from lowland.runs.folder import locked
from lowland.train import fit
from lowland.trajectory import DecaySchedule


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
    rows: Annotated[
        int, typer.Option(min=2, help="Training rows for the losses along the curves.")
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
    asked = Joining(kinds, bends, epochs or 0, lr, points, rows, align, seed)
    execute(join(runs, ends, out, trust=trust), asked)


def join(
    runs: list[Path], ends: str | None, out: Path | None, *, trust: bool = False
) -> Connection:
    """Which networks are meant, and where their curves go."""
    if len(runs) > 2:
        raise ConfigError(f"expected one run or two, got {len(runs)}.")
    opened = open_runs(runs, trust=trust)
    first = opened[0].folder.path
    place = out or (first / "connect" if len(runs) == 1 else first.parent / "connect")
    return Connection(place.expanduser(), opened, _ends(opened, ends))


def execute(joined: Connection, asked: Joining) -> Table:
    """Does what `lowland connect` does."""
    console = Terminal()
    line = Line(*joined.ends())  # refused before anything is written
    joined.path.mkdir(parents=True, exist_ok=True)
    with locked(joined.path), using_threads(joined.runs[0].threads):
        joined.claim(asdict(asked) | {"kinds": list(asked.kinds)})
        with Bars(console) as bars:
            curves: dict[str, Curve] = {"line": line}
            if asked.align:
                curves["aligned"] = _aligned(joined)
            for kind in asked.kinds:
                curves[kind] = _fitted(joined, kind, asked, bars.add(f"fit: {TITLES[kind]}"))
            records = {
                kind: _path(joined, kind, curve, asked, bars.add(f"along: {TITLES[kind]}"))
                for kind, curve in curves.items()
            }
        table = Table.from_rows(_row(kind, record) for kind, record in records.items())
        table.save(joined.record("curves.json"))
        pictures = _draw(joined, records)
    names = " and ".join(joined.titles())
    many = f"{next(iter(records.values())).rows:,} training rows"
    show_figures(table, "curve", f"Between {names} ({many})", console, rows="curve")
    say(console, f"Results: {joined.path}/")
    say(console, f"Pictures: {', '.join(pictures)}")
    return table


def _ends(runs: list[Opened], ends: str | None) -> tuple[str, str]:
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


def _fitted(joined: Connection, kind: str, asked: Joining, progress: Any) -> Curve:
    """The curve, fitted as the networks were trained, but for the learning rate."""
    try:
        found = KINDS[kind].load(joined.shape(kind))
        progress(1, 1)
        return found
    except StoreError:  # not there yet, or damaged
        pass
    setup, train = joined.setup, joined.setup.config.train
    curve = KINDS[kind].between(*joined.ends(), bends=asked.bends)
    epochs = asked.epochs or train.epochs
    total = epochs * -(-setup.length() // train.accumulate)
    checkpoint = joined.path / "checkpoints" / f"{kind}.safetensors"

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=asked.lr, momentum=train.momentum, fused=True)

    fitted = fit(
        curve,
        setup.surface,
        epochs=epochs,
        loader=setup.batches(asked.seed),
        optimizer=optimizer,
        schedule=lambda made: DecaySchedule(made, total=total),
        weight_decay=train.weight_decay,
        compile=setup.config.compile,
        accumulate=train.accumulate,
        clip=train.clip,
        seed=asked.seed,
        checkpoint=checkpoint,
        progress=progress,
    )
    assert fitted.log is not None
    fitted.log.save(joined.record(f"training-{kind}.json"))
    joined.shape(kind).parent.mkdir(parents=True, exist_ok=True)
    fitted.save(joined.shape(kind))
    return fitted


def _aligned(joined: Connection) -> Curve:
    """The line to the second end with its hidden units permuted."""
    w0, w1 = joined.ends()
    return Line(w0, joined.setup.aligned(w0, w1))


def _path(joined: Connection, kind: str, curve: Curve, asked: Joining, progress: Any) -> PathResult:
    file = joined.record(f"path-{kind}.json")
    try:
        found = PathResult.load(file)
        progress(1, 1)
        return found
    except StoreError:  # not there yet, or damaged
        setup = joined.setup
        found = along(
            curve,
            setup.surface,
            points=asked.points,
            loader=setup.test,
            count=asked.rows,
            store=joined.path / "checkpoints" / f"path-{kind}.journal",
            progress=progress,
        )
        found.save(file)
        return found


def _row(kind: str, record: PathResult) -> dict[str, Any]:
    summary = record.summary()
    row: dict[str, Any] = {"method": TITLES[kind]}
    row |= {"loss_ends": max(float(record.loss[0]), float(record.loss[-1]))}
    row |= {"loss_max": summary["loss"]["max"], "barrier": record.barrier}
    for name in ("error", "test_loss", "test_error"):
        if name in summary:
            values = getattr(record, name)
            row[f"{name}_ends"] = max(float(values[0]), float(values[-1]))
            row[f"{name}_max"] = summary[name]["max"]
    return row | {"length": float(record.length[-1])}


def _draw(joined: Connection, records: dict[str, PathResult]) -> list[str]:
    """Writes pictures/*.png; gives their names."""
    titled = {TITLES[kind]: record for kind, record in records.items()}
    done = []
    for metric in ("loss", "error"):
        if metric in next(iter(records.values())).summary():
            axes = plots.path(titled, metric=metric)
            plots.save(axes, joined.path / "pictures" / f"path-{metric}.png")
            done.append(f"path-{metric}.png")
    return done
