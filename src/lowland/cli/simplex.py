"""`lowland simplex`: simplexes of low loss around networks, or a volume that joins them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from torch import Tensor

from lowland.artifacts import Artifact, Graph, Inputs, Source
from lowland.artifacts.graph import complete
from lowland.cli.building import drawn, outline
from lowland.cli.console import Terminal, say
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.show import Bars, show_figures
from lowland.cli.simplexes import COMPLEX, Simplexes
from lowland.cli.trust import Trust
from lowland.core.seeds import seed_for
from lowland.core.threads import using_threads
from lowland.errors import ConfigError
from lowland.geometry import Barycentric, Simplex, SimplicialComplex
from lowland.posteriors import Ensemble, Mixture, PointMass, Posterior, Uniform
from lowland.records import GrowthResult, Table
from lowland.runs.averaging import AveragesTable, PosteriorPrediction
from lowland.runs.config import Growing, check_growing
from lowland.runs.growth import Grown, GrownSimplex
from lowland.runs.pictures import GrowthPicture, SamplesPicture
from lowland.runs.run import Run
from lowland.runs.triangles import Triangle, TrianglePicture


def simplex(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="A folder that `lowland run` made, or several that differ in the seed alone.",
        ),
    ],
    vertices: Annotated[
        int | None,
        typer.Option(
            min=2, help="Of the simplex around each network, itself included: 4 without it."
        ),
    ] = None,
    connectors: Annotated[
        int | None,
        typer.Option(min=1, help="Vertices that the networks share: one volume joins them all."),
    ] = None,
    around: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="The networks, files of the run's weights/: sgd-0 without it, of several runs "
            "sgd-0 of each, with --connectors of one run sgd-0,sgd-1.",
        ),
    ] = None,
    align: Annotated[
        bool,
        typer.Option(
            "--align",
            help="With --connectors: the units of all networks in the first one's order, so that "
            "less stands between them.",
        ),
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Of fitting each vertex.")] = 10,
    samples: Annotated[int, typer.Option(min=1, help="Points of the simplex a step.")] = 5,
    lr: Annotated[float, typer.Option(help="Of fitting; it falls from half of the budget on.")] = (
        0.05
    ),
    strength: Annotated[
        float | None,
        typer.Option(
            help="Of the volume in the loss, lambda* of the paper: 1e-6, with --connectors 0.1."
        ),
    ] = None,
    rise: Annotated[
        float,
        typer.Option(help="How far the loss may come above the networks', in nats an item."),
    ] = 0.1,
    points: Annotated[
        int, typer.Option(min=1, help="Random points at which a simplex is looked at.")
    ] = 20,
    examples: Annotated[
        int, typer.Option(min=2, help="Training examples for the losses there.")
    ] = 10_000,
    draws: Annotated[
        int, typer.Option(min=1, help="Networks in the average over the simplexes.")
    ] = 25,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where simplexes, records and pictures go: RUN/simplex, or a folder `simplex` "
            "beside the first of several; one folder holds simplexes or one volume.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    trust: Trust = False,
) -> None:
    """Grow simplexes of low loss, and average over them.

    Around each network one of --vertices, or with --connectors one volume that joins them. Stop it
    at any moment; the same command goes on where it stopped.
    """
    if vertices is not None and connectors is not None:
        raise ConfigError("give --vertices or --connectors: simplexes around networks, or between.")
    if align and connectors is None:
        raise ConfigError("--align orders the units of networks that --connectors joins; add that.")
    growing = check_growing(
        {
            "vertices": vertices or 4,
            "epochs": epochs,
            "samples": samples,
            "lr": lr,
            "strength": strength,
            "rise": rise,
            "points": points,
            "examples": examples,
        },
        where="the options",
    )
    opened = load_runs(runs, trust=trust)
    first = opened[0].folder.path
    place = out or (first / "simplex" if len(runs) == 1 else first.parent / "simplex")
    names = _names(opened, around, joined=connectors is not None)
    stage = Simplexes(place.expanduser(), opened, names)
    execute(stage, growing, connectors=connectors or 0, align=align, draws=draws, seed=seed)


def execute(
    stage: Simplexes,
    growing: Growing,
    *,
    connectors: int,
    draws: int,
    seed: int,
    align: bool = False,
) -> dict[str, Barycentric]:
    """Does what `lowland simplex` does."""
    console = Terminal()
    if connectors:  # bad ones are told before anything is written
        SimplicialComplex.connecting(stage.weights())
    for mode in stage.weights():
        Simplex([mode])
    own = {"connectors": connectors, "seed": seed}
    stage.claim(growing.model_dump() | own | ({"align": True} if align else {}))
    run = Run(stage.setup.config, stage.setup)
    modes = stage.sources()
    names = [COMPLEX] if connectors else [f"simplex-{i}" for i in range(len(modes))]
    simplexes = {
        name: GrownSimplex(
            run,
            name,
            modes if connectors else modes[i : i + 1],
            growing,
            seed=seed_for("simplex", seed, i),
            connectors=connectors,
            align=align,
            validate=True,
        )
        for i, name in enumerate(names)
    }
    graph = Graph(stage.path, tell=lambda line: say(console, line))
    with using_threads(stage.runs[0].threads), Bars(console) as bars:
        outline(graph, list(simplexes.values()), console)
        graph.build(list(simplexes.values()), bar=bars.of)
        grown = {name: graph.load(each) for name, each in simplexes.items()}
        predictions = _predictions(run, modes, simplexes, grown, draws=draws, seed=seed)
        averages = AveragesTable(predictions)
        pictures = _pictures(run, simplexes, grown, predictions)
        targets = complete([*simplexes.values(), averages, *pictures])
        graph.build(targets, bar=bars.of)
    for name, each in grown.items():
        _steps(each.growth, name, console)
    show_figures(graph.load(averages), "test", "Test data", console)
    say(console, f"Results: {stage.path}/")
    say(console, f"Pictures: {', '.join(drawn(graph, targets))}")
    return {name: each.simplex for name, each in grown.items()}


def _names(runs: list[FinishedRun], around: str | None, *, joined: bool) -> list[str]:
    words = [word.strip() for word in (around or "").split(",") if word.strip()]
    if len(runs) > 1:
        words = words or ["sgd-0"]
        words = words * len(runs) if len(words) == 1 else words
        if len(words) != len(runs):
            raise ConfigError(
                f"--around: expected one name, or one for each of {len(runs)} runs, got {around!r}."
            )
    words = words or (["sgd-0", "sgd-1"] if joined else ["sgd-0"])
    if len(runs) == 1 and len(set(words)) < len(words):
        raise ConfigError(f"--around: {around} names a network twice, which would count double.")
    if joined and len(words) < 2:
        raise ConfigError(
            f"--connectors joins two networks or more, got {around!r} of one run; name more of "
            "them with --around, or give runs of other seeds."
        )
    return words


def _predictions(
    run: Run,
    modes: Sequence[Source],
    simplexes: dict[str, GrownSimplex],
    grown: dict[str, Grown],
    *,
    draws: int,
    seed: int,
) -> list[PosteriorPrediction]:
    """What is averaged: the network, the networks, and one simplex after the other."""
    parts = list(simplexes.values())

    def ensemble(inputs: Inputs) -> Posterior:
        return Ensemble([inputs[mode.name] for mode in modes])

    def first(number: int) -> Callable[[Inputs], Posterior]:
        def mixture(inputs: Inputs) -> Posterior:
            each = [Uniform(inputs[part.name].simplex) for part in parts[:number]]
            return Mixture(each) if number > 1 else each[0]

        return mixture

    def network(inputs: Inputs) -> Posterior:
        return PointMass(inputs[modes[0].name])

    options: dict[str, Any] = {"draws": draws, "seed": seed}
    predictions = [PosteriorPrediction(run, "network", "Network", modes[:1], network, **options)]
    if len(modes) > 1:
        label = f"Ensemble of {len(modes)}"
        predictions.append(PosteriorPrediction(run, "ensemble", label, modes, ensemble, **options))
    if not any(cell[1:] for each in grown.values() for cell in each.simplex.cells):
        return predictions  # no new vertex was kept
    for number in range(1, len(parts) + 1):
        label = "Simplex" if number == 1 else f"ESPRO of {number}"
        file = f"espro-{number}"
        if COMPLEX in simplexes:
            label, file = "Complex", COMPLEX
        predictions.append(
            PosteriorPrediction(run, file, label, parts[:number], first(number), **options)
        )
    return predictions


def _pictures(
    run: Run,
    simplexes: dict[str, GrownSimplex],
    grown: dict[str, Grown],
    predictions: Sequence[PosteriorPrediction],
) -> list[Artifact]:
    """How simplexes grew, metrics by samples, and the first triangle."""
    pictures: list[Artifact] = [
        GrowthPicture(f"growth-{name}", {name: each}) for name, each in simplexes.items()
    ]
    several = {each.label: each for each in predictions}
    pictures += [SamplesPicture(several), SamplesPicture(several, "error")]
    name, first = next(iter(grown.items()))
    if len(first.simplex.cells[0]) >= 3:
        pictures.append(TrianglePicture(Triangle(run, simplexes[name])))
    return pictures


def _steps(growth: GrowthResult, name: str, console: Console) -> None:
    """Prints how a simplex grew."""
    table = growth.table()
    counted = growth.unit
    several: Tensor = growth.vertices
    titles = [f"{n} {counted if n != 1 else ONE[counted]}" for n in several.tolist()]
    rest = {k: v for k, v in table.columns.items() if k not in (counted, "accepted")}
    where = f"{growth.samples} points, {growth.examples:,} training examples"
    steps = Table({"method": titles} | rest)
    show_figures(steps, "growth", f"{name} ({where})", console, rows="")
    if growth.stop_reason:
        say(console, growth.stop_reason)


ONE = {"vertices": "vertex", "connectors": "connector"}
