"""The commands, one line each."""

from __future__ import annotations

import typer

from lowland.cli.average import average
from lowland.cli.compare import compare
from lowland.cli.demo import demo
from lowland.cli.run import run

app = typer.Typer(
    name="lowland",
    help="See, walk and average over the loss surface of a PyTorch model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(demo)
app.command()(average)
app.command()(compare)
