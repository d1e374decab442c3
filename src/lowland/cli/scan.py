"""`lowland scan`: the loss surface on a plane, or along a line, of finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lowland.artifacts import Graph
from lowland.artifacts.graph import GRAPH
from lowland.cli.building import outline
from lowland.cli.connection import Connection
from lowland.cli.console import Terminal, say
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.show import Bars
from lowland.cli.simplexes import Simplexes
from lowland.cli.stage import Stage, load, names_in
from lowland.cli.subspaces import Subspaces
from lowland.cli.trust import Trust
from lowland.core import Point
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, StoreError
from lowland.geometry import Line, Plane, Shape
from lowland.landscape import directions
from lowland.records import SurfaceResult
from lowland.runs.run import Run
from lowland.runs.scans import Grid, ScanPictures, SurfaceScan
from lowland.runs.setup import Setup
from lowland.trajectory import Trajectory

# what may be named by words of its own
STAGES: tuple[type[Stage], ...] = (Connection, Simplexes, Subspaces)


def scan(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="A folder that `lowland run`, `connect`, `simplex` or `subspace` made; or two or "
            "three runs that differ in the seed alone.",
        ),
    ],
    plane: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Three weights: w0,w1,bend are the ends and the bend of a curve that `lowland "
            "connect` made (bend1, bend2, ... where it has several, bezier.bend and chain.bend "
            "where there are two), v0,v1,v2 are vertices of a simplex that `lowland simplex` made "
            "(s1.v0 of the second), center,z1,z2 are the middle of a subspace of `lowland "
            "subspace` and a unit along its first two directions, others are files of the run's "
            "weights/, such as sgd-0; two make a line; of several runs one is enough. pca: the "
            "walk's principal components; random: filter-normalised directions around --around.",
        ),
    ] = None,
    around: Annotated[
        str, typer.Option(metavar="NAME", help="The middle of a random plane.")
    ] = "sgd-0",
    walk: Annotated[
        str, typer.Option(metavar="NAME", help="The iterates of --plane pca, in trajectory/.")
    ] = "swa-0",
    split: Annotated[str, typer.Option(help="The examples: train or test.")] = "train",
    examples: Annotated[int, typer.Option(min=2, help="How many of them.")] = 2000,
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
    trust: Trust = False,
) -> None:
    """Draw the loss surface on a plane through networks.

    Stop it at any moment; the same command goes on where it stopped.
    """
    if split not in ("train", "test"):
        raise ConfigError(f"--split: expected train or test, got {split!r}.")
    view = View.of(runs, plane, trust=trust, around=around, walk=walk, seed=seed)
    name = f"{view.name}{'-test' if split == 'test' else ''}"
    place = out.expanduser() if out else runs[0].expanduser() / "scan" / name
    execute(view, Grid(resolution, margin, refine or None, examples, split), place)


@dataclass(frozen=True)
class View:
    """A shape to look at, and what is drawn over the picture."""

    name: str
    setup: Setup
    threads: int
    shape: Shape
    overlays: dict[str, Any]

    @classmethod
    def of(cls, runs: list[Path], plane: str | None, *, trust: bool, **options: Any) -> View:
        """What the command line asks for."""
        stage = _stage(runs, plane, trust=trust)
        opened = stage.runs if stage else load_runs(runs, trust=trust)
        return cls.through(stage, opened, plane, **options)

    @classmethod
    def through(
        cls, joined: Stage | None, opened: list[FinishedRun], plane: str | None, **options: Any
    ) -> View:
        """The same, with the runs, and the curves or simplexes that are meant."""
        setup = joined.setup if joined else Setup(opened[0].config)
        words = [word.strip() for word in (plane or "").split(",") if word.strip()]
        if not words:
            words = joined.plane() if joined else ["sgd-0"]
            if not joined and len(opened) == 1:
                words = ["sgd-0", "sgd-1", "sgd-2"]
        if words in (["pca"], ["random"]):
            if len(opened) > 1:
                raise ConfigError(
                    f"--plane {words[0]} lies in one run; give {opened[0].folder.path} alone."
                )
            made = _pca if words == ["pca"] else _random
            shape, overlays = made(opened[0], setup, **options)
        else:
            shape, overlays = _through(words, opened, setup, joined)
        return cls("-".join(words), setup, opened[0].threads, shape, overlays)


def execute(view: View, grid: Grid, place: Path) -> SurfaceResult:
    """Does what `lowland scan` does."""
    console = Terminal()
    _require_ours(place)
    run = Run(view.setup.config, view.setup)
    surface = SurfaceScan(run, view.name, view.shape, view.overlays, grid)
    pictures = ScanPictures(surface)
    graph = Graph(place, tell=lambda line: say(console, line))
    place.mkdir(parents=True, exist_ok=True)
    with using_threads(view.threads):
        outline(graph, [pictures], console)
        if not graph.is_done(surface):
            expected = surface.forecast()
            say(console, f"{expected} at most; the same command goes on when it is stopped.")
        with Bars(console) as bars:
            graph.build([surface, pictures], bar=bars.of)
    result: SurfaceResult = graph.load(surface)
    total = result.x.numel() * (1 if result.y is None else result.y.numel())
    say(
        console,
        f"{result.evaluations} of {total} points evaluated, {result.examples:,} examples each.",
    )
    say(console, f"Results: {place}/")
    say(console, f"Pictures: {', '.join(path.name for path in graph.load(pictures))}")
    return result


def _require_ours(place: Path) -> None:
    """Raises `StoreError` where the folder holds anything but scans."""
    holds = {path.name for path in place.iterdir()} if place.is_dir() else set()
    if holds and GRAPH not in holds:
        raise StoreError(
            f"{place} is not empty, and no folder of a scan; name another with --out, or delete it."
        )


def _stage(runs: list[Path], plane: str | None, *, trust: bool) -> Stage | None:
    """The curves or simplexes that are meant, where any are."""
    if len(runs) > 1:
        return None
    path = runs[0].expanduser()
    for kind in STAGES:
        if kind.is_at(path):
            return kind.open(path, trust=trust)
    words = [word.strip() for word in (plane or "").split(",")]
    for kind in STAGES:
        meant = any(map(kind.owns, words))
        there = kind.within(path)
        if meant and len(there) > 1:
            raise ConfigError(
                f"--plane {plane}: {path} holds several {kind.makes}; name the folder of one in "
                f"the place of the run: {', '.join(map(str, there))}."
            )
        if (meant or plane is None) and len(there) == 1:
            found = kind.open(there[0], trust=trust)
            if meant or set(found.plane()) <= found.named().keys():  # enough for a plane
                return found
        elif meant:
            raise ConfigError(
                f"--plane {plane}: {path} holds no {kind.makes} yet; make them with `lowland "
                f"{kind.command} {path}`, or name weights of the run."
            )
    return None


def _through(
    words: list[str], opened: list[FinishedRun], setup: Setup, joined: Stage | None
) -> tuple[Shape, dict[str, Any]]:
    """The plane of three weights, or the line of two."""
    named = joined.named() if joined else {}
    if joined and words == joined.plane() and not set(words) <= named.keys():
        raise ConfigError(
            f"{joined.path} holds {len(named)} weights to name ({', '.join(named)}), too few for a "
            "plane; name others with --plane, or two for a line."
        )
    there = [*named, *names_in(opened[0].folder)]
    for word in words if joined else []:
        if word not in there:
            raise ConfigError(
                f"--plane: {joined.path if joined else ''} and its run hold no weights {word!r}; "
                f"there are {', '.join(there)}."
            )
    if len(opened) > 1 and not joined:
        if len(words) not in (1, len(opened)):
            raise ConfigError(
                f"--plane: expected one name for all {len(opened)} runs, or one for each, got "
                f"{', '.join(words)}."
            )
        each = words * len(opened) if len(words) == 1 else words
        pairs = list(zip(opened, each, strict=True))
        found: list[Any] = [load(run.folder, word, setup) for run, word in pairs]
        short = [run.folder.path.name for run in opened]
        labels = short if len(set(short)) == len(short) else [run.name for run in opened]
        if len(words) > 1:
            labels = [f"{label} {word}" for label, word in zip(labels, words, strict=True)]
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
    curves = joined.drawn(words) if joined else {}
    return Plane.through(*found), {"marks": labels, "curves": curves or None}


def _random(
    run: FinishedRun, setup: Setup, *, around: str, seed: int, **_: Any
) -> tuple[Shape, dict[str, Any]]:
    w = load(run.folder, around, setup)
    return Plane(w, *directions(setup.surface, w.weights, seed=seed)), {"marks": [around]}


def _pca(run: FinishedRun, setup: Setup, *, walk: str, **_: Any) -> tuple[Shape, dict[str, Any]]:
    try:
        store = Trajectory.open(run.folder.path / "trajectory" / walk, layout=setup.layout)
    except StoreError as error:
        raise ConfigError(
            f"--plane pca: {error} A run of the method swa keeps iterates."
        ) from error
    marks: dict[str, Point] = {"average": store.average()}
    return store.pca(rank=2), {"paths": {"SGD": store}, "marks": marks}
