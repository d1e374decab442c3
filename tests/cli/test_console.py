"""What users named is printed as it is; numbers are never cut; Ctrl-C is one line at any moment."""

import io
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from lowland.cli.bars import Bars
from lowland.cli.console import Terminal, say, visible
from lowland.cli.tables import print_table, show_comparison, show_metrics
from lowland.records import Table
from tests.cli.inside import lowland

HOSTILE = [
    "[/b]",
    "[bold]x[/bold]",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    "a\rb",
    "\u202egnp",
    ":smile:",
]


def table(label: str = "SWAG") -> Table:
    return Table(
        {
            "method": [label, "Deep ensemble of 3"],
            "accuracy": torch.tensor([0.95917, 0.97123], dtype=torch.float64),
            "nll": torch.tensor([0.12345, 0.10785], dtype=torch.float64),
            "nll_se": torch.tensor([0.00123, 0.0021], dtype=torch.float64),
            "ece": torch.tensor([0.0111, 0.0255], dtype=torch.float64),
            "samples": torch.tensor([30.0, 3.0], dtype=torch.float64),
        }
    )


def printed(write, width: int = 80, **options) -> str:
    out = io.StringIO()
    write(Terminal(file=out, width=width, **options))
    return out.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "write",
    [
        lambda name: lambda console: say(console, f"Results: {name}/"),
        lambda name: lambda console: show_comparison(table(name), console),
        lambda name: lambda console: show_metrics(table(name), "test", name, console),
        lambda name: (
            lambda console: print_table(
                {name: ["1"], "dtypes": [name]}, console, rows=name, labels=[name], title=name
            )
        ),
        lambda name: lambda console: Bars(console).add(name)(1, 1),
    ],
    ids=["say", "show", "figures", "table", "bars"],
)
def test_names_are_shown_as_they_are(name: str, write) -> None:
    for width in (20, 80, 200):
        out = printed(write(name), width)
        assert not [c for c in out if c != "\n" and not c.isprintable()], repr(out)
        if width == 200:
            assert visible(name) in out


@pytest.mark.parametrize("name", HOSTILE)
def test_bars_on_a_terminal(name: str) -> None:
    def write(console: Terminal) -> None:
        with Bars(console) as bars:
            bars.add(name)(1, 2)

    out = printed(write, 120, force_terminal=True, color_system=None)
    assert visible(name) in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out)
    assert "\x1b[31m" not in out


@pytest.mark.parametrize("name", HOSTILE[:5])
def test_errors_show_names_as_they_are(name: str) -> None:
    code, out, err = lowland("run", f"{name}.yaml")
    assert code == 2
    assert not out
    assert err == f"lowland: {visible(name)}.yaml: no such configuration; check the path.\n"


@pytest.mark.parametrize("width", [1, 10, 20, 30, 40, 60, 80])
def test_numbers_are_never_cut(width: int) -> None:
    numbers = ["0.9592", "0.9712", "0.1235±0.0012", "0.1079±0.0021", "0.0111", "0.0255", "30", "3"]
    for write in (
        lambda console: show_comparison(table(), console),
        lambda console: show_metrics(table(), "test", "Test data", console),
    ):
        out = printed(write, width)
        assert "…" not in out
        assert all(number in out for number in numbers)


def test_the_best_is_bold() -> None:
    out = printed(
        lambda console: show_comparison(table(), console),
        force_terminal=True,
        color_system="standard",
    )
    bold = re.findall(r"\x1b\[1m *([0-9.]+)(?:±[0-9.]+)?\x1b", out)
    assert bold == ["0.0111", "0.9712", "0.1079"]  # ECE of the first row, the others of the second


@pytest.mark.parametrize("module", ["torch", "lowland", "typer", "lowland.cli.app"])
def test_ctrl_c_while_modules_are_imported(module: str) -> None:
    """The interrupt comes as the module is asked for, as it would in the middle of its import."""
    code = f"""
import builtins, sys
own = builtins.__import__
def interrupted(name, *args, **kwargs):
    if name == {module!r}:
        raise KeyboardInterrupt
    return own(name, *args, **kwargs)
builtins.__import__ = interrupted
from lowland_command import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "\nlowland: stopped; run the same command again to go on.\n"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_a_signal_while_torch_is_imported(seconds: float) -> None:
    code = "from lowland_command import main; print('begun', flush=True); main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "run", "nothing.yaml"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert "Traceback" not in err
    assert process.returncode in (130, 2)  # stopped, or done before
