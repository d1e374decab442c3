"""`lowland simplex`: simplexes of low loss around networks, or a volume that joins them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from torch import Tensor

from lowland import plots
from lowland.cli.averages import predicted, row
from lowland.cli.console import Terminal, say
from lowland.cli.opened import Opened, open_runs
from lowland.cli.show import Bars, show_figures
from lowland.cli.simplexes import COMPLEX, Simplexes, save_grown
from lowland.cli.trust import Trust
from lowland.core import Point
from lowland.core.seeds import seed_for
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, StoreError
from lowland.geometry import Barycentric, Simplex, SimplicialComplex
from lowland.landscape import ternary
from lowland.posteriors import Ensemble, Mixture, PointMass, Posterior, Uniform
from lowland.records import GrowthResult, Predictive, Table, TernaryResult
from lowland.runs.config import Growing, check_growing
from lowland.runs.folder import locked
from lowland.runs.growth import grow

_SIDE = 15  # points a side of the picture of a triangle
_SHOWN = 2000  # training rows of it


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
    rows: Annotated[int, typer.Option(min=2, help="Training rows for the losses there.")] = 10_000,
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
    asked = check_growing(
        {
            "vertices": vertices or 4,
            "epochs": epochs,
            "samples": samples,
            "lr": lr,
            "strength": strength,
            "rise": rise,
            "points": points,
            "rows": rows,
        },
        where="the options",
    )
    opened = open_runs(runs, trust=trust)
    first = opened[0].folder.path
    place = out or (first / "simplex" if len(runs) == 1 else first.parent / "simplex")
    names = _names(opened, around, joined=connectors is not None)
    stage = Simplexes(place.expanduser(), opened, names)
    execute(stage, asked, connectors=connectors or 0, align=align, draws=draws, seed=seed)


def execute(
    stage: Simplexes,
    asked: Growing,
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
    modes = stage.weights()
    if align:
        modes = (modes[0], *(stage.setup.aligned(modes[0], mode) for mode in modes[1:]))
    stage.path.mkdir(parents=True, exist_ok=True)
    with locked(stage.path), using_threads(stage.runs[0].threads):
        own = {"connectors": connectors, "seed": seed}
        stage.claim(asked.model_dump() | own | ({"align": True} if align else {}))
        with Bars(console) as bars:
            shapes: dict[str, Barycentric] = {}
            growths: dict[str, GrowthResult] = {}
            names = [COMPLEX] if connectors else [f"simplex-{i}" for i in range(len(stage.names))]
            for i, name in enumerate(names):
                progress = bars.add(f"grow: {name}")
                shapes[name], growths[name] = _grown(
                    stage,
                    name,
                    modes if connectors else modes[i : i + 1],
                    asked,
                    connectors=connectors,
                    seed=seed_for("simplex", seed, i),
                    progress=progress,
                )
            preds = {
                title: predicted(stage, file, post, draws, seed, bars.add(f"predict: {title}"))
                for title, (file, post) in _posteriors(stage, shapes).items()
            }
            triangle = _triangle(stage, shapes, bars)
        for name, growth in growths.items():
            _steps(growth, name, console)
        table = Table.from_rows(row(title, pred) for title, pred in preds.items())
        table.save(stage.record("averages.json"))
        show_figures(table, "test", "Test data", console)
        pictures = _draw(stage, growths, preds, triangle)
    say(console, f"Results: {stage.path}/")
    say(console, f"Pictures: {', '.join(pictures)}")
    return shapes


def _names(runs: list[Opened], around: str | None, *, joined: bool) -> list[str]:
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


def _grown(
    stage: Simplexes,
    name: str,
    modes: Sequence[Point],
    asked: Growing,
    *,
    connectors: int,
    seed: int,
    progress: Any,
) -> tuple[Barycentric, GrowthResult]:
    record = stage.record(f"growth-{name}.json")
    with suppress(StoreError):  # not there yet, or damaged
        found = Barycentric.load(stage.shape(name)), GrowthResult.load(record)
        progress(1, 1)
        return found
    setup = stage.setup

    def validate(shape: Barycentric) -> dict[str, float]:
        """Figures of the test rows at random points of the simplex."""
        points: Any = Uniform(shape).points(asked.points)
        if all(len(cell) == 1 for cell in shape.cells):
            points = map(shape.anchor, range(len(shape.anchors)))
        table = setup.surface.evaluate(points, setup.test)
        found = {}
        for metric in ("nll", "error", "rmse"):
            if metric in table.columns:
                values = table.columns[metric]
                found[f"test_{metric}_mean"] = float(values.mean())
                found[f"test_{metric}_max"] = float(values.max())
        return found

    shape, growth = grow(
        setup,
        modes,
        asked,
        connectors=connectors,
        seed=seed,
        checkpoint=stage.path / "checkpoints" / name,
        validate=validate,
        progress=progress,
    )
    save_grown(shape, growth, stage.shape(name), record)
    return shape, growth


def _posteriors(
    stage: Simplexes, shapes: dict[str, Barycentric]
) -> dict[str, tuple[str, Posterior]]:
    """What is averaged, by title: the file of its predictions, and the posterior."""
    modes = stage.weights()
    found: dict[str, tuple[str, Posterior]] = {"Network": ("network", PointMass(modes[0]))}
    if len(modes) > 1:
        found[f"Ensemble of {len(modes)}"] = ("ensemble", Ensemble(modes))
    each = list(map(Uniform, shapes.values()))
    if not any(cell[1:] for shape in shapes.values() for cell in shape.cells):
        return found  # no new vertex was kept
    if COMPLEX in shapes:
        return found | {"Complex": (COMPLEX, each[0])}
    for m in range(1, len(each) + 1):
        title = "Simplex" if m == 1 else f"ESPRO of {m}"
        found[title] = (f"espro-{m}", Mixture(each[:m]) if m > 1 else each[0])
    return found


def _triangle(stage: Simplexes, shapes: dict[str, Barycentric], bars: Bars) -> TernaryResult | None:
    """The loss on the triangle of a simplex's first three vertices, where it has them."""
    shape = next(iter(shapes.values()))
    if len(shape.cells[0]) < 3:
        return None
    file = stage.record("triangle.json")
    with suppress(StoreError):  # not there yet, or damaged
        return TernaryResult.load(file)
    found = ternary(
        Simplex([shape.anchor(i) for i in shape.cells[0][:3]]),
        stage.setup.surface,
        resolution=_SIDE,
        count=_SHOWN,
        names=[f"v{i}" for i in shape.cells[0][:3]],
        split="training",
        progress=bars.add("triangle"),
    )
    found.save(file)
    return found


def _steps(growth: GrowthResult, name: str, console: Console) -> None:
    """Prints how a simplex grew."""
    table = growth.table()
    counted = growth.counted
    several: Tensor = growth.vertices
    titles = [f"{n} {counted if n != 1 else ONE[counted]}" for n in several.tolist()]
    rest = {k: v for k, v in table.columns.items() if k not in (counted, "kept")}
    where = f"{growth.samples} points, {growth.rows:,} training rows"
    steps = Table({"method": titles} | rest)
    show_figures(steps, "growth", f"{name} ({where})", console, rows="")
    if growth.stopped:
        say(console, growth.stopped)


ONE = {"vertices": "vertex", "connectors": "connector"}


def _draw(
    stage: Simplexes,
    growths: dict[str, GrowthResult],
    preds: dict[str, Predictive],
    triangle: TernaryResult | None,
) -> list[str]:
    """Writes pictures/*.png; gives their names."""
    drawn: dict[str, Any] = {
        f"growth-{name}": plots.growth(growth) for name, growth in growths.items()
    }
    many = {t: p for t, p in preds.items() if p.samples > 1 and p.nll_by_samples is not None}
    if many:
        drawn["nll-by-samples"] = plots.samples(many)
    wrong = {t: p for t, p in many.items() if p.error_by_samples is not None}
    if wrong:
        drawn["error-by-samples"] = plots.samples(wrong, metric="error")
    if triangle is not None:
        drawn["triangle"] = plots.ternary(triangle)
    for name, axes in drawn.items():
        plots.save(axes, stage.path / "pictures" / f"{name}.png")
    return [f"{name}.png" for name in drawn]
