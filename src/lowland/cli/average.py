"""`lowland average`: SWA and SWAG from checkpoints on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from lowland.artifacts import Graph
from lowland.artifacts.nodes import GRAPH, write_graph
from lowland.artifacts.order import complete, ordered
from lowland.artifacts.places import ARTIFACTS, leases_of
from lowland.artifacts.view import hide_others
from lowland.cli.average_files import RECORD
from lowland.cli.average_graph import AverageGraph, AverageOptions
from lowland.cli.average_metrics import AverageEvaluator
from lowland.cli.average_moments import CheckpointSet
from lowland.cli.bars import Bars
from lowland.cli.builder import Builder
from lowland.cli.checkpoints import CheckpointSelection, inspect, select_checkpoints, tensors_of
from lowland.cli.console import Terminal, say
from lowland.cli.contents import report
from lowland.cli.tables import show_comparison
from lowland.cli.trust import Trust, require_trusted
from lowland.errors import ConfigError, LowlandError, StoreError
from lowland.files import require_own
from lowland.runs.config import read_config
from lowland.runs.plan import ExecutionPlan, plan_of
from lowland.trajectory.checkpoint_tensors import layout_of
from lowland.trajectory.tensor_kinds import require_whole


def average(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Files (.safetensors, their .index.json, .ckpt, .pt, .pth, .pth.tar, .bin), "
            "patterns in quotes, or a folder: the output folder of the Hugging Face Trainer, a "
            "folder of Lightning's ModelCheckpoint or its lightning_logs/version_N, or a folder of "
            "such files. Those that hold pickled objects are refused: `lowland convert`.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Where the averages are written: the SWA weights as model.safetensors beside "
            "config.json for a Hugging Face model, else as swa.safetensors; SWAG's moments as "
            "swag.safetensors; average.json lists what was averaged.",
        ),
    ] = Path("averaged"),
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG.yaml",
            help="Names the model and the data, as for `lowland run`. With it BatchNorm statistics "
            "are re-estimated for the averaged weights, SWAG's scale is chosen on the validation "
            "split, and the last checkpoint, SWA and SWAG are compared on the test split. Without "
            "it no model is needed, and BatchNorm statistics stay those of the last checkpoint.",
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Take the last N checkpoints alone, by step."),
    ] = None,
    start: Annotated[
        int | None,
        typer.Option(
            "--from",
            metavar="STEP",
            help="Take checkpoints from this step on. Average only the end of training, where "
            "the loss has stopped falling: the last quarter is a good start.",
        ),
    ] = None,
    rank: Annotated[
        int,
        typer.Option(
            metavar="K",
            help="Directions that SWAG keeps: the deviations of the last K checkpoints, each as "
            "large as the model in float32. 0 keeps a variance for each weight alone.",
        ),
    ] = 20,
    swag: Annotated[
        bool, typer.Option(help="Whether to make SWAG too; it needs two checkpoints or more.")
    ] = True,
    ema: Annotated[
        float | None,
        typer.Option(
            metavar="DECAY",
            help="Also write an exponential moving average over the checkpoints, as "
            "ema.safetensors: 0.9 averages about the last ten.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Average only the tensors whose names fit this regular expression; the others "
            "are taken from the last checkpoint. Without a model all floating-point tensors but "
            "those known for something else by their names are averaged; --inspect lists them.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Where in a torch file the weights are, such as ema.state_dict; looked for under "
            "state_dict, model_state_dict, model and module otherwise. Files of Lightning's "
            "WeightAveraging hold the iterate, which is taken, and its average: state_dict.",
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX",
            help="Take only the tensors whose names begin with this, and leave it out of the names "
            "that are written: net. for a network that is self.net of a LightningModule. Found by "
            "itself where --config names the model.",
        ),
    ] = None,
    each: Annotated[
        bool,
        typer.Option("--each", help="With --config: evaluate every checkpoint."),
    ] = False,
    look: Annotated[
        bool,
        typer.Option(
            "--inspect",
            help="Only list files, steps, sizes, dtypes and names, and check that they fit "
            "together. Nothing is imported or written.",
        ),
    ] = False,
    trust: Trust = False,
) -> None:
    """Average checkpoints that are on disk already: SWA and SWAG, with no training.

    Stop it at any moment; the same command goes on where it stopped. What other options or
    checkpoints change is built again, and the rest is kept.

    lowland average runs/bert --out averaged --last 10
    """
    console = Terminal()
    selection = select_checkpoints(sources, last=last, start=start, key=key, prefix=prefix)
    if selection.choice is not None:
        say(console, selection.choice[0].upper() + selection.choice[1:])
    if look:
        inspect(selection, where, console)
        return
    if swag and len(selection.checkpoints) < 2:
        raise LowlandError(
            f"SWAG needs two checkpoints or more, got {selection.last.path} alone; name more, or "
            "add --no-swag."
        )
    if each and config is None:
        raise ConfigError("--each: metrics of checkpoints need a model and data; give --config.")
    if each and where is not None:
        raise ConfigError("--each evaluates whole checkpoints; leave out --where.")
    path = out.expanduser()
    require_average_folder(path)
    _average(selection, AverageOptions(rank, swag, ema, where, config, each, trust), path, console)


def require_average_folder(path: Path) -> None:
    """Raises `StoreError` where a folder holds anything but an average of this version."""
    require_own(path, [RECORD], rest=(GRAPH, ARTIFACTS), content="earlier average", option="--out")
    if (path / RECORD).is_file() and not (path / GRAPH).is_file():
        raise StoreError(
            f"{path} is an average without {GRAPH}, as an earlier version of lowland wrote it; "
            "name another folder with --out."
        )


def _average(
    selection: CheckpointSelection, options: AverageOptions, path: Path, console: Console
) -> None:
    last = selection.check(options.where)
    evaluator = None
    if options.config is None:
        layout = layout_of(last.tensors, where=options.where, kinds=last.kinds)
    else:
        config = read_config(options.config)
        require_trusted(config, file=options.config, trust=options.trust)
        evaluator = AverageEvaluator(config, last.tensors, options.where)
        layout, last = evaluator.layout, last.of_model(evaluator.last)
        require_whole({*layout.names, *layout.aliases}, last.kinds)
    with Bars(console) as bars:
        sources = selection.sources(bars.add("checksums"))
    checkpoints = CheckpointSet(selection, last, layout, options.where, sources)
    graph = AverageGraph(checkpoints, evaluator, options)
    path.mkdir(parents=True, exist_ok=True)
    with leases_of(path).hold("average", f"an average in {path}"):
        _build(graph, path, console)


def _build(graph: AverageGraph, path: Path, console: Console) -> None:
    """Builds the artifacts of an average, and prints what it is."""
    targets, evaluator = graph.targets(), graph.evaluator
    write_graph(path, ordered(targets), alone=True)
    if not (path / RECORD).exists():
        graph.record.write(path)
    threads = torch.get_num_threads()
    if evaluator is not None:
        artifact = ExecutionPlan(evaluator.setup)
        plan = plan_of(Graph(path), artifact)
        evaluator.follow(plan)
        targets.append(artifact)
        threads = plan.threads
    builder = Builder(path, console, threads=threads)
    builder.build(complete(targets))
    hide_others(path, ordered(targets))
    if graph.table is not None:
        show_comparison(builder.load(graph.table), console)
    checkpoints = graph.checkpoints
    span, layout = checkpoints.selection.span(), checkpoints.layout
    say(
        console,
        f"Averaged {span}: P = {layout.size:,} in {tensors_of(len(layout.names))}.",
    )
    report(builder.load(graph.record), console)
    for name, file in graph.files.items():
        say(console, f"{name}: {path / file}")
