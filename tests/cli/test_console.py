"""What users named is printed as it is; Ctrl-C is one line at any moment."""

import builtins
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from lowland.cli.console import say, visible
from lowland_command import main
from tests.cli.inside import lowland
from tests.cli.terminal import HOSTILE, assert_shown_as_it_is


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_they_are(name: str) -> None:
    line = f"Results: {name}/"
    assert visible(line) in assert_shown_as_it_is(name, lambda console: say(console, line))


@pytest.mark.parametrize("name", HOSTILE[:5])
def test_errors_show_names_as_they_are(name: str) -> None:
    code, out, err = lowland("run", f"{name}.yaml")
    assert code == 2
    assert not out
    assert err == f"lowland: {visible(name)}.yaml: no such configuration; check the path.\n"


STOPPED = "\nlowland: stopped; run the same command again to go on.\n"


@pytest.mark.parametrize("module", ["torch", "lowland"])
def test_ctrl_c_while_the_package_is_imported(module: str) -> None:
    """The interrupt comes as the module is asked for, as it would in the middle of its import."""
    code = f"""
import builtins, sys
sys.argv = ["lowland", "run", "nothing.yaml"]
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
    assert done.stderr == STOPPED


@pytest.mark.parametrize("module", ["typer", "lowland.cli.app"])
def test_ctrl_c_while_the_commands_are_imported(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the package is imported by then, in this process."""
    own = builtins.__import__

    def interrupted(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == module:
            raise KeyboardInterrupt
        return own(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == STOPPED


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_signal_while_torch_is_imported() -> None:
    code = "from lowland_command import main; print('begun', flush=True); main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "run", "nothing.yaml"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert "Traceback" not in err
    assert process.returncode in (130, 2)  # stopped, or done before
