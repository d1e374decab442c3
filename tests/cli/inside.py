"""The command line in this process, which has torch already: for commands that nothing stops."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from lowland.cli import main


def lowland(*args):
    """Its exit code, what it printed, and its errors."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["lowland", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
    return stop.value.code, out.getvalue(), err.getvalue()
