"""`lowland demo`: the methods on the digits that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lowland.cli.run import execute
from lowland.runs.config import read_config


def demo(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value]", help="Settings to put over its own: out=FOLDER seed=1."
        ),
    ] = None,
) -> None:
    """Run every method on the handwritten digits that come with scikit-learn."""
    package = Path(__file__).parents[1]
    installed = package / "configs" / "digits.yaml"
    checkout = package.parents[1] / "configs" / "digits.yaml"
    execute(read_config(installed if installed.is_file() else checkout, overrides or []))
