"""The commands: one file each, in the order of `lowland --help`, with help for every option."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import lowland as ll
from lowland import cli
from lowland.cli.app import COMMANDS, description, load_command
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
    assert {*COMMANDS} == files


def test_help_lists_the_commands_in_order() -> None:
    code, out, err = lowland("--help")
    assert code == 0, err
    lines = [line.strip("│ ").split()[:1] for line in out.splitlines()]
    assert [line[0] for line in lines if line and line[0] in COMMANDS] == [*COMMANDS]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_has_the_first_lines_of_commands(command: str) -> None:
    assert description(command) == inspect.cleandoc(load_command(command).help)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["status", "."]])
def test_quick_commands_import_no_torch(arguments: list[str]) -> None:
    code = f"""
import sys
from lowland.cli import main
sys.argv = ["lowland", *{arguments!r}]
try:
    main()
except SystemExit:
    print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_an_unknown_command() -> None:
    code, _, err = lowland("runn", "a.yaml")
    assert code == 2
    assert "No such command 'runn'. Did you mean 'run'?" in err


def test_the_version() -> None:
    assert lowland("--version") == (0, f"lowland {ll.__version__}\n", "")


@pytest.mark.parametrize("package", ["typer", "yaml"])
def test_a_missing_package_is_named(package: str) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
sys.argv = ["lowland", "run", "a.yaml"]
from lowland.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    message = f'lowland: the command line needs {package}: pip install "lowland[cli]"'
    assert done.stderr.strip() == message
