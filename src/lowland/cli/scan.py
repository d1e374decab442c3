"""`lowland scan`: the loss surface on a plane, or along a line, of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import typer

from lowland.artifacts.nodes import GRAPH
from lowland.cli.arguments import out_option
from lowland.cli.builder import Builder
from lowland.cli.console import Terminal, say
from lowland.cli.curve_folder import CurveFolder
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.options import Keys, with_section_options
from lowland.cli.origins import ORIGINS, Place, write_origins
from lowland.cli.simplex_folder import SimplexFolder
from lowland.cli.stage_folder import (
    StageFolder,
    one_for_each,
    open_trajectory,
)
from lowland.cli.subspace_folder import SubspaceFolder
from lowland.cli.trust import Trust
from lowland.core import Point
from lowland.core.threads import using_threads
from lowland.errors import ConfigError
from lowland.files import require_own
from lowland.geometry import Line, Plane, Shape
from lowland.landscape import directions
from lowland.records import SurfaceResult
from lowland.runs.keys import key
from lowland.runs.plan import RunPlan
from lowland.runs.run import Run
from lowland.runs.scans import Grid, ScanPictures, SurfaceScan
from lowland.runs.setup import Setup

#: folders with points that have names of their own
STAGES: tuple[type[StageFolder], ...] = (CurveFolder, SimplexFolder, SubspaceFolder)


class ScanOptions(Grid):
    """A plane or a line, and where the surface is evaluated on it."""

    plane: list[str] = key(
        [],
        "three names of weights, or two for a line; or pca, the principal components of SGD "
        "iterates, or random, filter-normalised directions around --around",
    )
    around: str = key("sgd-0", "weights at the centre of a random plane")
    trajectory: str = key("swa-0", "SGD iterates for pca, in trajectory/")
    seed: int = key(0, "seed of everything random", ge=0)


@with_section_options
def scan(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="A folder that `lowland run`, `connect`, `simplex` or `subspace` made; or two or "
            "three runs that differ in the seed alone.",
        ),
    ],
    options: Annotated[ScanOptions, Keys()],
    out: Annotated[Path | None, out_option("scan/PLANE in the first folder")] = None,
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
    stage = _find_stage(runs, options.plane, trust=trust)
    view = make_view(stage, stage.runs if stage else load_runs(runs, trust=trust), options)
    name = f"{view.name}{'-test' if options.split == 'test' else ''}"
    path = out.expanduser() if out else runs[0].expanduser() / "scan" / name
    execute(view, options, path)


@dataclass(frozen=True)
class View:
    """A shape on which losses are evaluated, and what is drawn over the picture."""

    name: str
    setup: Setup
    plan: RunPlan
    shape: Shape
    overlays: dict[str, Any]
    files: list[Place]  # from which the shape was read


def make_view(stage: StageFolder | None, runs: Sequence[FinishedRun], options: ScanOptions) -> View:
    """The plane or line through named weights of a stage or of runs; without names a default."""
    setup = stage.setup if stage else runs[0].setup()
    names = list(options.plane)
    if not names and stage:
        names = stage.default_plane()
    elif not names:
        names = ["sgd-0", "sgd-1", "sgd-2"] if len(runs) == 1 else ["sgd-0"]
    if names in (["pca"], ["random"]):
        if len(runs) > 1:
            raise ConfigError(
                f"--plane {names[0]} lies in one run; give {runs[0].folder.path} alone."
            )
        if names == ["pca"]:
            shape, overlays = _pca_plane(runs[0], setup, options.trajectory)
            file = f"trajectory/{options.trajectory}"
        else:
            shape, overlays = _random_plane(runs[0], setup, options)
            file = f"weights/{options.around}.safetensors"
        files = [(runs[0].folder.path, file)]
    else:
        shape, overlays, files = _shape_through(names, runs, setup, stage)
    return View("-".join(names), setup, runs[0].plan, shape, overlays, files)


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


def _find_stage(runs: Sequence[Path], names: list[str], *, trust: bool) -> StageFolder | None:
    """The stage folder that a command names, or whose points the plane names."""
    if len(runs) > 1:
        return None
    path = runs[0].expanduser()
    for cls in STAGES:
        if cls.is_at(path):
            return cls.open(path, trust=trust)
    plane = ",".join(names)
    for cls in STAGES:
        is_named = any(map(cls.has_name, names))
        folders = cls.within(path)
        if is_named and len(folders) > 1:
            raise ConfigError(
                f"--plane {plane}: {path} holds several {cls.content}; name the folder of one in "
                f"the place of the run: {', '.join(map(str, folders))}."
            )
        if (is_named or not names) and len(folders) == 1:
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
) -> tuple[Shape, dict[str, Any], list[Place]]:
    """The plane through three weights or the line through two, what is drawn over it, and files."""
    labels = names
    if stage is not None:
        points, files = _points_of_stage(names, stage), _files_of_stage(names, stage)
    else:
        each = names
        if len(runs) > 1:
            each, labels = one_for_each(names, len(runs), option="--plane"), _labels(names, runs)
        weights = list(zip(cycle(runs), each, strict=False))
        points = [run.folder.load_weights(name, setup.layout) for run, name in weights]
        files = [(run.folder.path, f"weights/{name}.safetensors") for run, name in weights]
    if len(points) == 2:
        return Line(points[0], points[1]), {}, files
    if len(points) != 3:
        raise ConfigError(
            f"--plane: expected three names of weights, or two for a line, got {len(points)}: "
            f"{', '.join(labels)}."
        )
    curves = stage.overlays(names) if stage else {}
    return Plane.through(*points), {"marks": labels, "curves": curves or None}, files


def _points_of_stage(names: list[str], stage: StageFolder) -> list[Point]:
    """Points of a stage and weights of its run."""
    points, folder = stage.points(), stage.runs[0].folder
    if names == stage.default_plane() and not set(names) <= points.keys():
        raise ConfigError(
            f"{stage.path} holds {len(points)} weights to name ({', '.join(points)}), too few for "
            "a plane; name others with --plane, or two for a line."
        )
    available = [*points, *folder.weight_names()]
    for name in names:
        if name not in available:
            raise ConfigError(
                f"--plane: {stage.path} and its run hold no weights {name!r}; "
                f"there are {', '.join(available)}."
            )
    return [
        points[name] if name in points else folder.load_weights(name, stage.setup.layout)
        for name in names
    ]


def _files_of_stage(names: list[str], stage: StageFolder) -> list[Place]:
    """The files of a stage's points, and of weights of its run."""
    shapes = sorted((stage.path / "shapes").glob("*.safetensors"))
    files = [(stage.path, f"shapes/{path.name}") for path in shapes]
    others = [name for name in names if not stage.has_name(name)]
    run = stage.runs[0].folder.path
    return files + stage.weight_files() + [(run, f"weights/{n}.safetensors") for n in others]


def _labels(names: list[str], runs: Sequence[FinishedRun]) -> list[str]:
    """The labels of weights of several runs."""
    labels = [run.folder.path.name for run in runs]
    if len(set(labels)) < len(labels):
        labels = [run.name for run in runs]
    if len(names) > 1:
        labels = [f"{label} {name}" for label, name in zip(labels, names, strict=True)]
    return labels


def _random_plane(
    run: FinishedRun, setup: Setup, options: ScanOptions
) -> tuple[Shape, dict[str, Any]]:
    w = run.folder.load_weights(options.around, setup.layout)
    axes = directions(setup.surface, w.weights, seed=options.seed)
    return Plane(w, *axes), {"marks": [options.around]}


def _pca_plane(run: FinishedRun, setup: Setup, trajectory: str) -> tuple[Shape, dict[str, Any]]:
    store = open_trajectory(run.folder, trajectory, setup, option="--plane pca")
    marks: dict[str, Point] = {"average": store.average()}
    return store.pca(rank=2), {"paths": {"SGD": store}, "marks": marks}
