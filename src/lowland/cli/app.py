"""The commands, one line each."""

from __future__ import annotations

from typing import Annotated

import typer

from lowland import __version__
from lowland.cli.average import average
from lowland.cli.budget import budget
from lowland.cli.clean import clean
from lowland.cli.compare import compare
from lowland.cli.connect import connect
from lowland.cli.convert import convert
from lowland.cli.demo import demo
from lowland.cli.options import with_section_options
from lowland.cli.run import run
from lowland.cli.scan import scan
from lowland.cli.sharpness import sharpness
from lowland.cli.simplex import simplex
from lowland.cli.status import status
from lowland.cli.subspace import subspace

app = typer.Typer(
    name="lowland",
    help="See, walk and average over the loss surface of a PyTorch model.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"lowland {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


#: in the order of `lowland --help`
COMMANDS = (
    run, demo, budget, average, convert, compare, connect, scan, sharpness, simplex, subspace,
    status, clean,
)  # fmt: skip

for command in COMMANDS:
    app.command()(with_section_options(command))
