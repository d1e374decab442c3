"""The commands: one file each, in the order of `lowland --help`, with help for every option."""

import importlib
import pkgutil

import lowland as ll
from lowland import cli
from lowland.cli.app import COMMANDS, app
from tests.cli.inside import lowland


def test_every_file_of_a_command_is_a_command() -> None:
    """A command's file has its name, and begins with its command line."""
    modules = [
        importlib.import_module(f"lowland.cli.{each.name}")
        for each in pkgutil.iter_modules(cli.__path__)
    ]
    names = [each.__name__.rpartition(".")[2] for each in modules]
    files = {
        name
        for name, module in zip(names, modules, strict=True)
        if module.__doc__.startswith(f"`lowland {name}`")
    }
    assert {command.__name__ for command in COMMANDS} == files
    assert [info.callback.__name__ for info in app.registered_commands] == [
        command.__name__ for command in COMMANDS
    ]


def test_help_lists_the_commands_in_order() -> None:
    code, out, err = lowland("--help")
    assert code == 0, err
    lines = [line.strip("│ ").split()[:1] for line in out.splitlines()]
    names = [command.__name__ for command in COMMANDS]
    assert [line[0] for line in lines if line and line[0] in names] == names


def test_the_version() -> None:
    assert lowland("--version") == (0, f"lowland {ll.__version__}\n", "")
