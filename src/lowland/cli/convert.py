"""`lowland convert`: the weights of checkpoints with pickled objects, as safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lowland.cli.bars import Bars
from lowland.cli.console import Terminal, say
from lowland.trajectory import convert_checkpoints


def convert(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Files, patterns in quotes, or a folder, as for `lowland average`.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Where the weights are written, a safetensors file a checkpoint, named by its "
            "step: step-500.safetensors. `lowland average` takes the folder.",
        ),
    ],
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Where in a file the weights are; see average."),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX", help="Write only tensors whose names begin with this; see average."
        ),
    ] = None,
    run_pickled_code: Annotated[
        bool,
        typer.Option(
            "--run-pickled-code",
            help="Unpickle the files as Python does. This runs any code that a file names: use it "
            "only for files that you trust. It is needed for whole pickled models and for tensor "
            "classes of other libraries, and not for pickled hyperparameters, which are skipped.",
        ),
    ] = False,
) -> None:
    """Write the weights of checkpoints that hold pickled objects as files that hold none.

    lowland convert lightning_logs/version_0 --out weights
    """
    console = Terminal()
    with Bars(console) as bars:
        converted = convert_checkpoints(
            sources,
            out,
            key=key,
            prefix=prefix,
            run_pickled_code=run_pickled_code,
            progress=bars.add("convert"),
        )
    steps = [c.step for c in converted if c.step is not None]
    span = f", steps {steps[0]} to {steps[-1]}" if len(steps) == len(converted) else ""
    say(console, f"Converted {len(converted)} checkpoints{span}: {out}")
