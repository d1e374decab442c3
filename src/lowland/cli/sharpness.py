"""`lowland sharpness`: how flat the loss is around the weights of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from lowland.artifacts import Source
from lowland.artifacts.nodes import GRAPH
from lowland.artifacts.order import complete
from lowland.artifacts.places import ARTIFACTS
from lowland.cli.arguments import out_option
from lowland.cli.builder import Builder
from lowland.cli.console import Terminal, say
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.options import Keys, with_section_options
from lowland.cli.origins import ORIGINS, write_origins
from lowland.cli.stage_folder import open_trajectory
from lowland.cli.tables import show_metrics
from lowland.cli.trust import Trust
from lowland.curvature.sharpness import MEASURES
from lowland.files import require_own
from lowland.records import Table
from lowland.runs.folder import RunFolder
from lowland.runs.measures import SharpnessOptions
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from lowland.runs.sharpness import sharpness_artifacts
from lowland.runs.sources import hash_of

_TRAJECTORY = "swa-0"


@with_section_options
def sharpness(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `lowland run` made.")],
    options: Annotated[SharpnessOptions, Keys()],
    out: Annotated[Path | None, out_option("RUN/sharpness")] = None,
    trust: Trust = False,
) -> None:
    """Measure how flat the loss is around the weights of a run, beside their losses.

    Stop it at any moment; the same command goes on where it stopped.
    """
    (finished,) = load_runs([run], trust=trust)
    execute(finished, options, (out or finished.folder.path / "sharpness").expanduser())


def execute(finished: FinishedRun, options: SharpnessOptions, path: Path) -> Table:
    """Builds the measures of a run in a folder, and prints their table."""
    setup = finished.setup()
    names = options.weights or default_weights(finished.folder)
    sources, equal = distinct([_source(finished.folder, name, setup) for name in names])
    rest = [ORIGINS, ARTIFACTS]
    require_own(path, [GRAPH], rest=rest, content="folder of sharpness", option="--out")
    name = _trajectory_name(finished.folder, options)
    swag = None if name is None else _swag(finished, name, setup)
    table, *pictures = sharpness_artifacts(Run(setup.config, setup), sources, options, swag=swag)
    builder = Builder(path, Terminal(), threads=finished.plan.threads)
    folder = finished.folder.path
    origins = {each.name: [(folder, f"{each.name}.safetensors")] for each in sources}
    if swag is not None:
        origins[swag.name] = [(folder, f"trajectory/{name}")]
    write_origins(path, origins)
    for name, first in equal.items():
        say(builder.console, f"{name}: the same weights as {first}, which are measured once.")
    builder.build(complete([table, *pictures]))
    result: Table = builder.load(table)
    there = getattr(setup.clean, "num_examples", None) or options.examples
    title = f"Sharpness on {min(there, options.examples):,} training examples"
    show_metrics(result, "sharpness", title, builder.console, rows="weights")
    say(builder.console, _units(options))
    builder.say_results()
    return result


def _units(options: SharpnessOptions) -> str:
    """What the columns of the table are, in a line."""
    radii = [f"{kind} {MEASURES[kind]().radius[0]:g}" for kind in options.kinds]
    return (
        f"Radii: {', '.join(radii)}. Widths: where the loss has risen by {options.rise:g} nats, on "
        "filter-normalised rays (median), along eigenvectors of length 1 (the smallest) and along "
        "SWAG, in standard deviations (median); inf: further than the rays go. gradient: its norm, "
        "with BatchNorm statistics estimated anew."
    )


def default_weights(folder: RunFolder) -> list[str]:
    """The names of annealed networks, and of the averages of the first trajectory."""
    names = folder.weight_names()
    averages = [name for name in ("average-0", "ema-0") if name in names]
    annealed = [name for name in names if name.startswith("sgd-")]
    return [*annealed[:1], *averages, *annealed[1:]] or names


def distinct(sources: Sequence[Source]) -> tuple[list[Source], dict[str, str]]:
    """The sources without those whose weights an earlier one has, and the labels of these by
    theirs: an average of a run may be its annealed network."""
    different: list[Source] = []
    equal: dict[str, str] = {}
    for source in sources:
        weights = source.value.weights
        first = next((s for s in different if torch.equal(s.value.weights, weights)), None)
        if first is None:
            different.append(source)
        else:
            equal[source.name.partition("/")[2]] = first.name.partition("/")[2]
    return different, equal


def _source(folder: RunFolder, name: str, setup: Setup) -> Source:
    point = folder.load_weights(name, setup.layout)
    content = {"hash": hash_of([point.weights, point.buffers or {}])}
    return Source(f"weights/{name}", point, content)


def _trajectory_name(folder: RunFolder, options: SharpnessOptions) -> str | None:
    there = (folder.path / "trajectory" / _TRAJECTORY).is_dir()
    return options.trajectory or (_TRAJECTORY if there else None)


def _swag(finished: FinishedRun, name: str, setup: Setup) -> Source | None:
    """SWAG of iterates; None: one has no deviations."""
    iterates = open_trajectory(finished.folder, name, setup, option="--trajectory")
    if len(iterates) < 2:
        return None
    swag = iterates.swag(rank=finished.config.average.rank)
    return Source(f"swag/{name}", swag, {"hash": hash_of(swag.deviations)})
