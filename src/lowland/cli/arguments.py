"""Arguments that several commands have; it imports no torch, which takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

RunFolderPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="A folder that `lowland run` or `average` made.")
]


def out_option(default: str) -> Any:
    """`--out FOLDER` of the results, where one is chosen otherwise."""
    return typer.Option(metavar="FOLDER", help=f"Folder of the results. Default: {default}.")
