"""The commands, one line each."""

from __future__ import annotations

from typing import Annotated

import typer

from lowland import __version__
from lowland.cli.average import average
from lowland.cli.clean import clean
from lowland.cli.compare import compare
from lowland.cli.connect import connect
from lowland.cli.convert import convert
from lowland.cli.demo import demo
from lowland.cli.run import run
from lowland.cli.scan import scan
from lowland.cli.simplex import simplex
from lowland.cli.status import status
from lowland.cli.subspace import subspace

app = typer.Typer(
    name="lowland",
    help="See, walk and average over the loss surface of a PyTorch model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
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


app.command()(run)
app.command()(demo)
app.command()(average)
app.command()(convert)
app.command()(compare)
app.command()(connect)
app.command()(scan)
app.command()(simplex)
app.command()(subspace)
app.command()(status)
app.command()(clean)
