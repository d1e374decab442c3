"""`lowland simplex`: simplexes of low loss around networks, or a volume that joins them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lowland.artifacts import Artifact, Inputs, Source
from lowland.artifacts.order import complete
from lowland.cli.arguments import out_option
from lowland.cli.console import Terminal, say
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.options import Keys, with_section_options
from lowland.cli.simplex_folder import COMPLEX, SimplexFolder
from lowland.cli.stage_folder import one_for_each, words_of
from lowland.cli.tables import show_metrics
from lowland.cli.trust import Trust
from lowland.core.seeds import seed_for
from lowland.errors import ConfigError
from lowland.geometry import Barycentric, Simplex, SimplicialComplex
from lowland.posteriors import Ensemble, Mixture, PointMass, Posterior, Uniform
from lowland.records import GrowthResult, Table
from lowland.runs.growth import GrownSimplex, SimplexGrowth
from lowland.runs.keys import key
from lowland.runs.pictures import growth_picture, samples_picture
from lowland.runs.posterior_predictions import AveragesTable, PosteriorPrediction
from lowland.runs.run import Run
from lowland.runs.shape_sections import Growth
from lowland.runs.triangles import triangle_picture

_SINGULAR = {"vertices": "vertex", "connectors": "connector"}


class SimplexOptions(Growth):
    """Simplexes around networks, or one volume that joins them, and the average over them."""

    connectors: int = key(
        0,
        "vertices that the networks share: one volume joins them all; 0: a simplex around each",
        ge=0,
    )
    seed: int = key(0, "seed of everything random", ge=0)
    align: bool = key(
        False,
        "with --connectors: bring the units of all networks into the order of the first, which "
        "lowers the loss between them",
    )
    draws: int = key(25, "networks in the average over the simplexes", ge=1)


@with_section_options
def simplex(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="A folder that `lowland run` made, or several that differ in the seed alone.",
        ),
    ],
    options: Annotated[SimplexOptions, Keys(but=("components", "jitter"))],
    around: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Networks, files of the run's weights/. Default: sgd-0, of each run where there "
            "are several; with --connectors and one run sgd-0,sgd-1.",
        ),
    ] = None,
    out: Annotated[
        Path | None, out_option("RUN/simplex, or `simplex` beside the first of several runs")
    ] = None,
    trust: Trust = False,
) -> None:
    """Grow simplexes of low loss, and average over them.

    One of --vertices around each network, or with --connectors one volume that joins them.

    Stop it at any moment; the same command goes on where it stopped.
    """
    if "vertices" in options.model_fields_set and options.connectors:
        raise ConfigError("give --vertices or --connectors: simplexes around networks, or between.")
    if options.align and not options.connectors:
        raise ConfigError("--align orders the units of networks that --connectors joins; add that.")
    finished_runs = load_runs(runs, trust=trust)
    names = _network_names(finished_runs, around, connected=options.connectors > 0)
    folder = SimplexFolder(out or SimplexFolder.default_path(finished_runs), finished_runs, names)
    execute(folder, options)


def execute(folder: SimplexFolder, options: SimplexOptions) -> dict[str, Barycentric]:
    """Builds the simplexes of a folder, averages over them, and prints both."""
    connectors = options.connectors
    if connectors:  # both raise before anything is written
        SimplicialComplex.connecting(folder.weights)
    for network in folder.weights:
        Simplex([network])
    folder.claim(options.model_dump(exclude={"draws"} | (set() if options.align else {"align"})))
    run = folder.run
    networks = folder.sources()
    names = [COMPLEX] if connectors else [f"simplex-{i}" for i in range(len(networks))]
    simplexes = {
        name: GrownSimplex(
            run,
            name,
            networks if connectors else networks[i : i + 1],
            options,
            seed=seed_for("simplex", options.seed, i),
            connectors=connectors,
            align=options.align,
            validate=True,
        )
        for i, name in enumerate(names)
    }
    console = Terminal()
    builder = folder.builder(console)
    builder.build(list(simplexes.values()))
    results: dict[str, SimplexGrowth] = {
        name: builder.load(each) for name, each in simplexes.items()
    }
    averages = AveragesTable(_predictions(run, networks, simplexes, results, options))
    pictures = _pictures(run, simplexes, results, averages)
    builder.build(complete([*simplexes.values(), averages, *pictures]))
    for name, each in results.items():
        _show_growth(each.growth, name, console)
    show_metrics(builder.load(averages), "test", "Test data", console)
    builder.say_results()
    return {name: each.simplex for name, each in results.items()}


def _network_names(runs: list[FinishedRun], around: str | None, *, connected: bool) -> list[str]:
    """The names of the networks: of one run, or one of each."""
    names = words_of(around)
    if len(runs) > 1:
        names = one_for_each(names or ["sgd-0"], len(runs), option="--around")
    names = names or (["sgd-0", "sgd-1"] if connected else ["sgd-0"])
    if len(runs) == 1 and len(set(names)) < len(names):
        raise ConfigError(f"--around: {around} names a network twice, which would count double.")
    if connected and len(names) < 2:
        raise ConfigError(
            f"--connectors joins two networks or more, got {around!r} of one run; name more of "
            "them with --around, or give runs of other seeds."
        )
    return names


def _predictions(
    run: Run,
    networks: Sequence[Source],
    simplexes: Mapping[str, GrownSimplex],
    results: Mapping[str, SimplexGrowth],
    settings: SimplexOptions,
) -> list[PosteriorPrediction]:
    """What is averaged: the network, the networks, and one simplex after the other."""
    parts = list(simplexes.values())

    def ensemble(inputs: Inputs) -> Posterior:
        return Ensemble([inputs[network.name] for network in networks])

    def first_simplexes(number: int) -> Callable[[Inputs], Posterior]:
        def mixture(inputs: Inputs) -> Posterior:
            each = [Uniform(inputs[part.name].simplex) for part in parts[:number]]
            return Mixture(each) if number > 1 else each[0]

        return mixture

    def point(inputs: Inputs) -> Posterior:
        return PointMass(inputs[networks[0].name])

    options: dict[str, Any] = {"draws": settings.draws, "seed": settings.seed}
    predictions = [PosteriorPrediction(run, "network", "Network", networks[:1], point, **options)]
    if len(networks) > 1:
        label = f"Ensemble of {len(networks)}"
        predictions.append(
            PosteriorPrediction(run, "ensemble", label, networks, ensemble, **options)
        )
    if not any(cell[1:] for each in results.values() for cell in each.simplex.cells):
        return predictions  # every new vertex was rejected
    for number in range(1, len(parts) + 1):
        label = "Simplex" if number == 1 else f"ESPRO of {number}"
        file = f"espro-{number}"
        if COMPLEX in simplexes:
            label, file = "Complex", COMPLEX
        posterior = first_simplexes(number)
        predictions.append(
            PosteriorPrediction(run, file, label, parts[:number], posterior, **options)
        )
    return predictions


def _pictures(
    run: Run,
    simplexes: Mapping[str, GrownSimplex],
    results: Mapping[str, SimplexGrowth],
    averages: AveragesTable,
) -> list[Artifact]:
    """How simplexes grew, metrics by samples, and the first triangle."""
    pictures: list[Artifact] = [
        growth_picture(f"growth-{name}", {name: each}) for name, each in simplexes.items()
    ]
    pictures += [samples_picture(averages.parts), samples_picture(averages.parts, "error")]
    name, first = next(iter(results.items()))
    if len(first.simplex.cells[0]) >= 3:
        pictures.append(triangle_picture(run, simplexes[name]))
    return pictures


def _show_growth(growth: GrowthResult, name: str, console: Console) -> None:
    """Prints how a simplex grew."""
    table = growth.table()
    unit, numbers = growth.unit, growth.vertices.tolist()
    titles = [f"{n} {unit if n != 1 else _SINGULAR[unit]}" for n in numbers]
    rest = {k: v for k, v in table.columns.items() if k not in (unit, "accepted")}
    where = f"{growth.samples} points, {growth.examples:,} training examples"
    steps = Table({"method": titles} | rest)
    show_metrics(steps, "growth", f"{name} ({where})", console, rows="")
    if growth.stop_reason:
        say(console, growth.stop_reason)
