"""`lowland average`: SWA and SWAG from checkpoints on disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from lowland.cli.average_metrics import AverageEvaluator
from lowland.cli.bars import Bars
from lowland.cli.checkpoints import (
    CheckpointSelection,
    Output,
    inspect,
    merge,
    select_checkpoints,
    tensors_of,
)
from lowland.cli.console import Terminal, say
from lowland.cli.contents import report
from lowland.cli.tables import show_comparison
from lowland.cli.trust import Trust, require_trusted
from lowland.core import ParamLayout
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, LowlandError
from lowland.runs.config import read_config
from lowland.trajectory import EMA, SWA, SWAG, Trajectory
from lowland.trajectory.checkpoint_tensors import layout_of
from lowland.trajectory.moments import Moments
from lowland.trajectory.tensor_kinds import require_whole

_IN_MEMORY = 1 << 30  # bytes of SWAG's deviations; more of them are mapped to a file


@dataclass(frozen=True)
class AverageOptions:
    """The options of the command line."""

    rank: int = 20
    swag: bool = True
    ema: float | None = None
    where: str | None = None
    config: Path | None = None
    each: bool = False
    trust: bool = False


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
    output = Output(out.expanduser(), selection)
    options = AverageOptions(rank, swag, ema, where, config, each, trust)
    fresh = not output.path.exists()
    output.path.mkdir(parents=True, exist_ok=True)
    try:
        # a configuration chooses its own threads inside
        with output.hold(), using_threads(torch.get_num_threads()):
            try:
                _average(selection, options, output, console)
            finally:
                _scratch(output).unlink(missing_ok=True)
    finally:
        if fresh and not output.files():  # refused before anything was written
            shutil.rmtree(output.path)


def _average(
    selection: CheckpointSelection, options: AverageOptions, output: Output, console: Console
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
        torch.set_num_threads(evaluator.setup.threads())
    traj = Trajectory.from_checkpoints(
        [c.path for c in selection.checkpoints], layout, key=selection.key, prefix=selection.prefix
    )
    swa, ema = _moments(layout, options, len(traj), output)
    notes = {"rank": getattr(swa, "rank", None), "ema": options.ema, "where": options.where}
    notes["key"] = selection.key
    output.record(**notes)
    moments: list[Moments] = [swa] if ema is None else [swa, ema]
    with Bars(console) as bars:
        traj.into(*moments, progress=bars.add("average"))
        table = (
            None
            if evaluator is None
            else evaluator.table(traj, swa, ema, each=options.each, bars=bars)
        )
    if evaluator is not None:
        for average in moments:
            average.refresh(evaluator.surface)

    def write(name: str, average: Moments) -> Path:
        buffers = {} if evaluator is None else average.buffers or {}
        return output.save(name, merge(layout, average.mean, last.tensors, buffers))

    output.clear()
    files = {"SWA": write("swa", swa)}
    if ema is not None:
        files["EMA"] = write("ema", ema)
    if isinstance(swa, SWAG):
        files["SWAG"] = swa.save(output.path / "swag.safetensors")
    output.finish(dequantized=bool(last.dequantized))
    if table is not None and evaluator is not None:
        table.save(output.path / "comparison.json")
        notes |= evaluator.tuned
        show_comparison(table, console)
    say(
        console,
        f"Averaged {selection.span()}: P = {layout.size:,} in {tensors_of(len(layout.names))}.",
    )
    notes["tensors"] = report(last.outcomes(layout, None if evaluator is None else swa), console)
    output.record(**notes)
    for name, path in files.items():
        say(console, f"{name}: {path}")


def _moments(
    layout: ParamLayout, options: AverageOptions, count: int, output: Output
) -> tuple[SWA | SWAG, EMA | None]:
    ema = None if options.ema is None else EMA(layout, decay=options.ema)
    if not options.swag:
        return SWA(layout), ema
    rank = min(options.rank, count)
    large = rank * layout.size * layout.dtype.itemsize > _IN_MEMORY
    return SWAG(layout, rank=rank, path=_scratch(output) if large else None), ema


def _scratch(output: Output) -> Path:
    return output.path / ".deviations.tmp"
