"""The commands. Each is a function of its own file, which is imported when the command is called:
most of them need torch, which takes seconds."""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from lowland.cli import exit_for_missing
from lowland_command import exit_on_interrupt

#: in the order of `lowland --help`
COMMANDS = (
    "run", "demo", "budget", "average", "convert", "compare", "connect", "scan", "sharpness",
    "simplex", "subspace", "status", "clean",
)  # fmt: skip
_STYLE: dict[str, Any] = {
    "rich_markup_mode": "markdown",
    "add_completion": False,
    "pretty_exceptions_enable": False,
}


class Commands(TyperGroup):
    """Commands by name; `lowland --help` reads their descriptions without an import."""

    lists_all = False  # while their list is made

    def __init__(self, **options: Any) -> None:
        # names alone: they are listed, and offered where a name is misspelt
        super().__init__(**options | {"commands": {name: TyperCommand(name) for name in COMMANDS}})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command; in a list, one that has a description alone."""
        if cmd_name not in self.commands:
            return None
        if self.lists_all:
            return TyperCommand(cmd_name, help=description(cmd_name))
        return load_command(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The list of all commands."""
        self.lists_all = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self.lists_all = False


@cache
def load_command(name: str) -> Any:
    """A command with its arguments and options."""
    try:
        with exit_on_interrupt():
            function = getattr(importlib.import_module(f"lowland.cli.{name}"), name)
    except ImportError as error:
        exit_for_missing(error)
    alone = typer.Typer(**_STYLE)
    alone.command(name)(function)
    return typer.main.get_command(alone)


def description(name: str) -> str:
    """The docstring of a command.

    >>> description("clean").splitlines()[0]
    'Show what takes how much disk in a run folder; with --remove, remove some of it.'
    """
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return ast.get_docstring(next(node for node in functions if node.name == name)) or ""


app = typer.Typer(
    name="lowland",
    cls=Commands,
    help="See, walk and average over the loss surface of a PyTorch model.",
    no_args_is_help=True,
    **_STYLE,
)


def _version(requested: bool) -> None:
    if requested:
        from lowland import __version__

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
