"""`lowland average`: SWA and SWAG from checkpoints that are on disk already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from lowland.cli.bars import Bars
from lowland.cli.checkpoints import (
    Chosen,
    Output,
    choose,
    inspect,
    merged,
    tensors_of,
)
from lowland.cli.console import Terminal, say
from lowland.cli.contents import report
from lowland.cli.judge import Judge
from lowland.cli.tables import show_comparison
from lowland.cli.trust import Trust, require_trusted
from lowland.core import ParamLayout
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, LowlandError
from lowland.runs.config import read_config
from lowland.runs.folder import locked
from lowland.trajectory import EMA, SWA, SWAG, Trajectory
from lowland.trajectory.formats import layout_of
from lowland.trajectory.kinds import require_whole
from lowland.trajectory.moments import Moments

_IN_MEMORY = 1 << 30  # bytes of SWAG's deviations; more of them are mapped to a file


@dataclass(frozen=True)
class Averages:
    """What to make of the checkpoints."""

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
            "swag.safetensors; average.json says what went in.",
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
            help="Take checkpoints from this step on. Averages want the end of training alone, "
            "where the loss has stopped falling: the last quarter is a good start.",
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
        bool, typer.Option("--each", help="With --config: judge every checkpoint, not the last.")
    ] = False,
    look: Annotated[
        bool,
        typer.Option(
            "--inspect",
            help="Only say what is there: files, steps, sizes, dtypes, names, and whether they fit "
            "together. Nothing is imported or written.",
        ),
    ] = False,
    trust: Trust = False,
) -> None:
    """Average checkpoints that are on disk already: SWA and SWAG, with no training.

    lowland average runs/bert --out averaged --last 10
    """
    console = Terminal()
    chosen = choose(sources, last=last, start=start, key=key, prefix=prefix)
    if chosen.choice is not None:
        say(console, chosen.choice[0].upper() + chosen.choice[1:])
    if look:
        inspect(chosen, where, console)
        return
    if swag and len(chosen.checkpoints) < 2:
        raise LowlandError(
            f"SWAG needs two checkpoints or more, got {chosen.last.path} alone; name more, or say "
            "--no-swag."
        )
    if each and config is None:
        raise ConfigError("--each: judging checkpoints needs model and data; give --config.")
    if each and where is not None:
        raise ConfigError("--each judges whole checkpoints; leave out --where.")
    output = Output(out.expanduser(), chosen)
    what = Averages(rank, swag, ema, where, config, each, trust)
    fresh = not output.path.exists()
    output.path.mkdir(parents=True, exist_ok=True)
    try:
        # a configuration chooses its own threads inside
        with locked(output.path), using_threads(torch.get_num_threads()):
            try:
                _average(chosen, what, output, console)
            finally:
                _scratch(output).unlink(missing_ok=True)
    finally:
        if fresh and not any(output.path.iterdir()):  # refused before anything was written
            output.path.rmdir()


def _average(chosen: Chosen, what: Averages, output: Output, console: Console) -> None:
    last = chosen.check(what.where)
    judge = None
    if what.config is None:
        layout = layout_of(last.tensors, where=what.where, kinds=last.kinds)
    else:
        config = read_config(what.config)
        require_trusted(config, file=what.config, trust=what.trust)
        judge = Judge(config, last.tensors, what.where)
        layout, last = judge.layout, last.of_model(judge.last)
        require_whole({*layout.names, *layout.aliases}, last.kinds)
        torch.set_num_threads(judge.setup.threads())
    traj = Trajectory.from_checkpoints(
        [c.path for c in chosen.checkpoints], layout, key=chosen.key, prefix=chosen.prefix
    )
    swa, ema = _averages(layout, what, len(traj), output)
    notes = {"rank": getattr(swa, "rank", None), "ema": what.ema, "where": what.where}
    notes["key"] = chosen.key
    output.record(**notes)
    moments: list[Moments] = [swa] if ema is None else [swa, ema]
    with Bars(console) as bars:
        traj.into(*moments, progress=bars.add("average"))
        rows = None if judge is None else judge.rows(traj, swa, ema, each=what.each, bars=bars)
    if judge is not None:
        for average in moments:
            average.refresh(judge.surface)

    def write(name: str, average: Moments) -> Path:
        buffers = {} if judge is None else average.buffers or {}
        return output.save(name, merged(layout, average.mean, last.tensors, buffers))

    output.clear()
    written = {"SWA": write("swa", swa)}
    if ema is not None:
        written["EMA"] = write("ema", ema)
    if isinstance(swa, SWAG):
        written["SWAG"] = swa.save(output.path / "swag.safetensors")
    output.finish(dequantized=bool(last.dequantized))
    if rows is not None and judge is not None:
        rows.save(output.path / "comparison.json")
        notes |= judge.notes
        show_comparison(rows, console)
    say(
        console,
        f"Averaged {chosen.span()}: P = {layout.size:,} in {tensors_of(len(layout.names))}.",
    )
    notes["tensors"] = report(last.outcomes(layout, None if judge is None else swa), console)
    output.record(**notes)
    for name, path in written.items():
        say(console, f"{name}: {path}")


def _averages(
    layout: ParamLayout, what: Averages, count: int, output: Output
) -> tuple[SWA | SWAG, EMA | None]:
    ema = None if what.ema is None else EMA(layout, decay=what.ema)
    if not what.swag:
        return SWA(layout), ema
    rank = min(what.rank, count)
    large = rank * layout.size * layout.dtype.itemsize > _IN_MEMORY
    return SWAG(layout, rank=rank, path=_scratch(output) if large else None), ema


def _scratch(output: Output) -> Path:
    return output.path / ".deviations.tmp"
