"""`lowland scan`: the loss surface on a plane, or along a line, of finished runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from torch import Tensor

from lowland import plots
from lowland.cli.connection import TITLES, Connection, is_connection, load, names_in
from lowland.cli.folder import locked
from lowland.cli.opened import Opened, open_runs
from lowland.cli.setup import Setup
from lowland.cli.show import Bars, say
from lowland.core import Point
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, StoreError
from lowland.geometry import Curve, Line, Plane, Shape
from lowland.landscape import directions, forecast
from lowland.landscape import scan as scanned
from lowland.records import SurfaceResult
from lowland.trajectory import Trajectory

_SURFACE = "surface.npz"
_OF_A_CURVE = re.compile(r"w0|w1|(\w+\.)?bend\d*")  # names of its anchors: ends and bends


def scan(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="A folder that `lowland run` or `lowland connect` made; or two or three runs that "
            "differ in the seed alone.",
        ),
    ],
    plane: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Three weights: w0,w1,bend are the ends and the bend of a curve that `lowland "
            "connect` made (bend1, bend2, ... where it has several, bezier.bend and chain.bend "
            "where there are two), others are files of the run's weights/, such as sgd-0; two make "
            "a line; of several runs one is enough. pca: the walk's principal components; random: "
            "filter-normalised directions around --around.",
        ),
    ] = None,
    around: Annotated[
        str, typer.Option(metavar="NAME", help="The middle of a random plane.")
    ] = "sgd-0",
    walk: Annotated[
        str, typer.Option(metavar="NAME", help="The iterates of --plane pca, in trajectory/.")
    ] = "swa-0",
    split: Annotated[str, typer.Option(help="The rows: train or test.")] = "train",
    rows: Annotated[int, typer.Option(min=2, help="How many of them.")] = 2000,
    resolution: Annotated[int, typer.Option(min=2, help="Points along each axis.")] = 41,
    margin: Annotated[
        float, typer.Option(min=0, help="Around the weights, as a share of their extent.")
    ] = 0.2,
    refine: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.5,
            help="What colours may be off by where the picture is interpolated, as a share of the "
            "scale; 0 evaluates every point.",
        ),
    ] = 0.02,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where it goes: scan/PLANE in the first folder."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a random plane.")] = 0,
) -> None:
    """Draw the loss surface on a plane through networks.

    Stop it at any moment; the same command goes on where it stopped.
    """
    if split not in ("train", "test"):
        raise ConfigError(f"--split: expected train or test, got {split!r}.")
    view = View.of(runs, plane, around=around, walk=walk, seed=seed)
    name = f"{view.name}{'-test' if split == 'test' else ''}"
    place = out.expanduser() if out else runs[0].expanduser() / "scan" / name
    options = {
        "resolution": resolution,
        "margin": margin,
        "refine": refine or None,
        "count": rows,
        "loader": view.setup.test if split == "test" else None,
    }
    execute(view, options, split, place)


@dataclass(frozen=True)
class View:
    """A shape to look at, and what is drawn over the picture."""

    name: str
    setup: Setup
    threads: int
    shape: Shape
    overlays: dict[str, Any]

    @classmethod
    def of(cls, runs: list[Path], plane: str | None, **options: Any) -> View:
        """What the command line asks for."""
        return cls.through(_connection(runs, plane), runs, plane, **options)

    @classmethod
    def through(
        cls, joined: Connection | None, runs: list[Path], plane: str | None, **options: Any
    ) -> View:
        """The same, with the curves that are meant."""
        opened = joined.runs if joined else open_runs(runs)
        setup = joined.setup if joined else Setup(opened[0].config)
        words = [word.strip() for word in (plane or "").split(",") if word.strip()]
        if not words:
            words = ["w0", "w1", "bend"] if joined else ["sgd-0"]
            if not joined and len(opened) == 1:
                words = ["sgd-0", "sgd-1", "sgd-2"]
        if words in (["pca"], ["random"]):
            made = _pca if words == ["pca"] else _random
            shape, overlays = made(opened[0], setup, **options)
        else:
            shape, overlays = _through(words, opened, setup, joined)
        return cls("-".join(words), setup, opened[0].threads, shape, overlays)


def execute(view: View, options: dict[str, Any], split: str, place: Path) -> SurfaceResult:
    """Does what `lowland scan` does."""
    console = Console()
    surface = view.setup.surface
    file = place / "records" / _SURFACE
    place.mkdir(parents=True, exist_ok=True)
    with locked(place), using_threads(view.threads):
        if not file.is_file():
            expected = forecast(view.shape, surface, **options, **view.overlays)
            say(console, f"{expected} at most; the same command goes on when it is stopped.")
        with Bars(console) as bars:
            try:
                found = scanned(
                    view.shape,
                    surface,
                    **options,
                    **view.overlays,
                    store=place / "scan.journal",
                    progress=bars.add(f"scan: {view.name}"),
                )
            except ConfigError as error:
                if "other settings" not in str(error):
                    raise
                raise ConfigError(
                    f"{place} is of other weights, or of another --resolution, --margin, --rows, "
                    "--refine or --seed; name another folder with --out, or delete it."
                ) from error
        found = replace(
            found, about=found.about | {"split": "training" if split == "train" else split}
        )
        found.save(file)
        with console.status("pictures"):
            pictures = draw(found, place / "pictures")
    total = found.x.numel() * (1 if found.y is None else found.y.numel())
    say(console, f"{found.evaluated} of {total} points evaluated, {found.rows:,} rows each.")
    say(console, f"Results: {place}/")
    say(console, f"Pictures: {', '.join(pictures)}")
    return found


def draw(found: SurfaceResult, folder: Path) -> list[str]:
    """Writes pictures/*.png; gives their names."""
    done = []
    for figure in found.figures:
        plots.save(plots.surface(found, figure=figure), folder / f"{figure}.png")
        done.append(f"{figure}.png")
    if found.y is not None:
        plots.save(plots.surface3d(found), folder / "loss-3d.png")
        done.append("loss-3d.png")
    return done


def _connection(runs: list[Path], plane: str | None) -> Connection | None:
    """The curves that are meant, where any are."""
    if len(runs) > 1:
        return None
    path = runs[0].expanduser()
    if is_connection(path):
        return Connection.open(path)
    words = [word.strip() for word in (plane or "").split(",")]
    curve = plane is None or any(_OF_A_CURVE.fullmatch(word) for word in words)
    if curve and is_connection(path / "connect"):
        return Connection.open(path / "connect")
    if curve and plane is not None:
        raise ConfigError(
            f"--plane {plane}: {path} holds no curve yet; make one with `lowland connect {path}`, "
            "or name weights of the run."
        )
    return None


def _through(
    words: list[str], opened: list[Opened], setup: Setup, joined: Connection | None
) -> tuple[Shape, dict[str, Any]]:
    """The plane of three weights, or the line of two."""
    named, curves = _of_curves(words, joined) if joined else ({}, {})
    if len(words) == 1 and len(opened) > 1:
        found = [load(run.folder, words[0], setup) for run in opened]
        labels = [f"{run.name}" for run in opened]
    else:
        found = [
            named[word] if word in named else load(opened[0].folder, word, setup) for word in words
        ]
        labels = words
    if len(found) == 2:
        return Line(found[0], found[1]), {}
    if len(found) != 3:
        raise ConfigError(
            f"--plane: expected three names of weights, or two for a line, got {len(found)}: "
            f"{', '.join(labels)}."
        )
    return Plane.through(*found), {"marks": labels, "curves": curves or None}


def _of_curves(words: list[str], joined: Connection) -> tuple[dict[str, Any], dict[str, Curve]]:
    """Ends and bends by name, and the curves to draw: those whose bends are named, or the first.

    Raises `ConfigError` for a name that is neither theirs nor one of the run's weights.
    """
    w0, w1 = joined.weights()
    fitted = {kind: curve for kind, curve in joined.curves().items() if kind != "line"}
    bends = {
        f"{kind}.{bend}": w for kind, curve in fitted.items() for bend, w in _bends(curve).items()
    }
    first = next(iter(fitted.values()), None)  # its bends need no more words
    named = {"w0": w0, "w1": w1, **(_bends(first) if first else {}), **bends}
    there = [*named, *names_in(joined.runs[0].folder)]
    for word in words:
        if word not in there:
            raise ConfigError(
                f"--plane: {joined.path} and its run hold no weights {word!r}; there are "
                f"{', '.join(there)}."
            )
    drawn = [kind for kind in fitted if any(word.startswith(f"{kind}.") for word in words)]
    curves = {TITLES[kind]: fitted[kind] for kind in drawn or list(fitted)[:1]}
    if {"w0", "w1"} <= set(words):
        curves["line"] = Line(w0, w1)
    return named, curves


def _bends(curve: Curve) -> dict[str, Tensor]:
    """Its free anchors by name: bend, which is bend1 too, bend2, ..."""
    free = curve.anchors[1:-1]
    return {"bend": free[0]} | {f"bend{i}": w for i, w in enumerate(free, 1)}


def _random(
    run: Opened, setup: Setup, *, around: str, seed: int, **_: Any
) -> tuple[Shape, dict[str, Any]]:
    w = load(run.folder, around, setup)
    return Plane(w, *directions(setup.surface, w.weights, seed=seed)), {"marks": [around]}


def _pca(run: Opened, setup: Setup, *, walk: str, **_: Any) -> tuple[Shape, dict[str, Any]]:
    try:
        store = Trajectory.open(run.folder.path / "trajectory" / walk, layout=setup.layout)
    except StoreError as error:
        raise ConfigError(
            f"--plane pca: {error} A run of the method swa keeps iterates."
        ) from error
    marks: dict[str, Point] = {"average": Point(store.swa())}
    return store.pca(rank=2), {"paths": {"SGD": store}, "marks": marks}
