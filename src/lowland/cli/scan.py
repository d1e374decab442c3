"""`lowland scan`: the loss surface on a plane, or along a line, of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import typer

from lowland.artifacts.nodes import GRAPH
from lowland.cli.builder import Builder
from lowland.cli.console import Terminal, say
from lowland.cli.curve_folder import CurveFolder
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.options import Keys, Seed
from lowland.cli.origins import ORIGINS, Place, write_origins
from lowland.cli.simplex_folder import SimplexFolder
from lowland.cli.stage_folder import StageFolder, load_weights, weight_names, words_of
from lowland.cli.subspace_folder import SubspaceFolder
from lowland.cli.trust import Trust
from lowland.core import Point
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, StoreError
from lowland.files import require_own
from lowland.geometry import Line, Plane, Shape
from lowland.landscape import directions
from lowland.records import SurfaceResult
from lowland.runs.plan import RunPlan
from lowland.runs.run import Run
from lowland.runs.scans import Grid, ScanPictures, SurfaceScan
from lowland.runs.setup import Setup
from lowland.trajectory import Trajectory

#: folders with points that have names of their own
STAGES: tuple[type[StageFolder], ...] = (CurveFolder, SimplexFolder, SubspaceFolder)


def scan(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="A folder that `lowland run`, `connect`, `simplex` or `subspace` made; or two or "
            "three runs that differ in the seed alone.",
        ),
    ],
    grid: Annotated[Grid, Keys()],
    plane: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Three names of weights, or two for a line; or pca, the principal components of "
            "SGD iterates, or random, filter-normalised directions around --around.",
        ),
    ] = None,
    around: Annotated[
        str, typer.Option(metavar="NAME", help="Weights at the centre of a random plane.")
    ] = "sgd-0",
    trajectory: Annotated[
        str, typer.Option(metavar="NAME", help="SGD iterates for pca, in trajectory/.")
    ] = "swa-0",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of the results. Default: scan/PLANE in the first folder."
        ),
    ] = None,
    seed: Seed = 0,
    trust: Trust = False,
) -> None:
    """Draw the loss surface on a plane through networks.

    Names of weights are:

    - files of the run's weights/, such as sgd-0; for several runs one name is enough
    - of `lowland connect`: w0 and w1, the ends of a curve, and bend, its control point (bend1,
      bend2, ... of several; bezier.bend and chain.bend of two curves)
    - of `lowland simplex`: v0, v1, v2, vertices (s1.v0 of the second simplex)
    - of `lowland subspace`: center, and z1 and z2, a unit along the first two directions

    Stop it at any moment; the same command goes on where it stopped.
    """
    stage = _find_stage(runs, plane, trust=trust)
    finished_runs = stage.runs if stage else load_runs(runs, trust=trust)
    view = make_view(
        stage, finished_runs, words_of(plane), around=around, trajectory=trajectory, seed=seed
    )
    name = f"{view.name}{'-test' if grid.split == 'test' else ''}"
    path = out.expanduser() if out else runs[0].expanduser() / "scan" / name
    execute(view, grid, path)


@dataclass(frozen=True)
class View:
    """A shape on which losses are evaluated, and what is drawn over the picture."""

    name: str
    setup: Setup
    plan: RunPlan
    shape: Shape
    overlays: dict[str, Any]
    files: list[Place]  # from which the shape was read


def make_view(
    stage: StageFolder | None, runs: Sequence[FinishedRun], names: Sequence[str], **options: Any
) -> View:
    """The plane or line through named weights of a stage or of runs; without names a default."""
    setup = stage.setup if stage else runs[0].setup()
    names = list(names)
    if not names and stage:
        names = stage.default_plane()
    elif not names:
        names = ["sgd-0", "sgd-1", "sgd-2"] if len(runs) == 1 else ["sgd-0"]
    if names in (["pca"], ["random"]):
        if len(runs) > 1:
            raise ConfigError(
                f"--plane {names[0]} lies in one run; give {runs[0].folder.path} alone."
            )
        plane_of = _pca_plane if names == ["pca"] else _random_plane
        shape, overlays = plane_of(runs[0], setup, **options)
        file = f"trajectory/{options['trajectory']}"
        if names == ["random"]:
            file = f"weights/{options['around']}.safetensors"
        files = [(runs[0].folder.path, file)]
    else:
        shape, overlays = _shape_through(names, runs, setup, stage)
        files = _files_of(names, runs, stage)
    return View("-".join(names), setup, runs[0].plan, shape, overlays, files)


def _files_of(
    names: list[str], runs: Sequence[FinishedRun], stage: StageFolder | None
) -> list[Place]:
    """The files of a stage's points, and of the weights of runs."""
    if stage is None:
        each = zip(cycle(runs), names * len(runs) if len(names) == 1 else names, strict=False)
        return [(run.folder.path, f"weights/{name}.safetensors") for run, name in each]
    shapes = sorted((stage.path / "shapes").glob("*.safetensors"))
    files = [(stage.path, f"shapes/{path.name}") for path in shapes]
    others = [name for name in names if not stage.has_name(name)]
    run = runs[0].folder.path
    return files + stage.weight_files() + [(run, f"weights/{n}.safetensors") for n in others]


def execute(view: View, grid: Grid, path: Path) -> SurfaceResult:
    """Builds the scan of a view in a folder, and its pictures."""
    require_own(path, [GRAPH], rest=[ORIGINS], content="folder of a scan", option="--out")
    surface = SurfaceScan(
        Run(view.setup.config, view.setup), view.name, view.shape, view.overlays, grid
    )
    pictures = ScanPictures(surface)
    console = Terminal()
    builder = Builder(path, console, threads=view.plan.threads)
    write_origins(path, {"shape": view.files})
    if not builder.graph.is_done(surface):
        with using_threads(view.plan.threads):
            expected = surface.forecast()
        say(console, f"{expected} at most; the same command goes on when it is stopped.")
    builder.build([surface, pictures])
    result: SurfaceResult = builder.load(surface)
    total = result.x.numel() * (1 if result.y is None else result.y.numel())
    say(
        console,
        f"{result.evaluations} of {total} points evaluated, {result.examples:,} examples each.",
    )
    say(console, f"Results: {path}/")
    say(console, f"Pictures: {', '.join(path.name for path in builder.load(pictures))}")
    return result


def _find_stage(runs: Sequence[Path], plane: str | None, *, trust: bool) -> StageFolder | None:
    """The stage folder that a command names, or whose points the plane names."""
    if len(runs) > 1:
        return None
    path = runs[0].expanduser()
    for cls in STAGES:
        if cls.is_at(path):
            return cls.open(path, trust=trust)
    names = words_of(plane)
    for cls in STAGES:
        is_named = any(map(cls.has_name, names))
        folders = cls.within(path)
        if is_named and len(folders) > 1:
            raise ConfigError(
                f"--plane {plane}: {path} holds several {cls.content}; name the folder of one in "
                f"the place of the run: {', '.join(map(str, folders))}."
            )
        if (is_named or plane is None) and len(folders) == 1:
            stage = cls.open(folders[0], trust=trust)
            if is_named or set(stage.default_plane()) <= stage.points().keys():
                return stage
        elif is_named:
            raise ConfigError(
                f"--plane {plane}: {path} holds no {cls.content} yet; make them with `lowland "
                f"{cls.command} {path}`, or name weights of the run."
            )
    return None


def _shape_through(
    names: list[str], runs: Sequence[FinishedRun], setup: Setup, stage: StageFolder | None
) -> tuple[Shape, dict[str, Any]]:
    """The plane through three weights, or the line through two."""
    if stage is None and len(runs) > 1:
        points, labels = _points_of_runs(names, runs, setup)
    else:
        points, labels = _points_of_run(names, runs[0], setup, stage), names
    if len(points) == 2:
        return Line(points[0], points[1]), {}
    if len(points) != 3:
        raise ConfigError(
            f"--plane: expected three names of weights, or two for a line, got {len(points)}: "
            f"{', '.join(labels)}."
        )
    curves = stage.overlays(names) if stage else {}
    return Plane.through(*points), {"marks": labels, "curves": curves or None}


def _points_of_run(
    names: list[str], run: FinishedRun, setup: Setup, stage: StageFolder | None
) -> list[Point]:
    """Points of a stage and weights of its run."""
    points = stage.points() if stage else {}
    if stage and names == stage.default_plane() and not set(names) <= points.keys():
        raise ConfigError(
            f"{stage.path} holds {len(points)} weights to name ({', '.join(points)}), too few for "
            "a plane; name others with --plane, or two for a line."
        )
    available = [*points, *weight_names(run.folder)]
    for name in names if stage else []:
        if name not in available:
            raise ConfigError(
                f"--plane: {stage.path if stage else ''} and its run hold no weights {name!r}; "
                f"there are {', '.join(available)}."
            )
    return [
        points[name] if name in points else load_weights(run.folder, name, setup) for name in names
    ]


def _points_of_runs(
    names: list[str], runs: Sequence[FinishedRun], setup: Setup
) -> tuple[list[Point], list[str]]:
    """Weights of several runs, and their labels: one name for all runs, or one for each."""
    if len(names) not in (1, len(runs)):
        raise ConfigError(
            f"--plane: expected one name for all {len(runs)} runs, or one for each, got "
            f"{', '.join(names)}."
        )
    each = names * len(runs) if len(names) == 1 else names
    points = [load_weights(run.folder, name, setup) for run, name in zip(runs, each, strict=True)]
    labels = [run.folder.path.name for run in runs]
    if len(set(labels)) < len(labels):
        labels = [run.name for run in runs]
    if len(names) > 1:
        labels = [f"{label} {name}" for label, name in zip(labels, names, strict=True)]
    return points, labels


def _random_plane(
    run: FinishedRun, setup: Setup, *, around: str, seed: int, **_: Any
) -> tuple[Shape, dict[str, Any]]:
    w = load_weights(run.folder, around, setup)
    return Plane(w, *directions(setup.surface, w.weights, seed=seed)), {"marks": [around]}


def _pca_plane(
    run: FinishedRun, setup: Setup, *, trajectory: str, **_: Any
) -> tuple[Shape, dict[str, Any]]:
    path = run.folder.path / "trajectory" / trajectory
    try:
        store = Trajectory.open(path, layout=setup.layout)
    except StoreError as error:
        raise ConfigError(
            f"--plane pca: {error} A run of the method swa keeps iterates."
        ) from error
    marks: dict[str, Point] = {"average": store.average()}
    return store.pca(rank=2), {"paths": {"SGD": store}, "marks": marks}
