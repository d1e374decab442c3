"""The command line in this process, which has torch already: for commands that nothing stops."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache

import pytest
import typer.main

from lowland import plots
from lowland.cli import main
from lowland.evaluate import planner
from lowland.files import atomic_write

_time_plan = planner.time_plan
_get_command = cache(typer.main.get_command)


def lowland(*args, pictures=False):
    """Its exit code, what it printed, and its errors.

    `pictures`: drawn, which takes most of a short command's time; else their files hold none.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["lowland", *map(str, args)])
        make_quick(patch, pictures=pictures)
        with pytest.raises(SystemExit) as stop:
            main()
    return stop.value.code, out.getvalue(), err.getvalue()


def make_quick(patch, *, pictures=False):
    """Leaves out what takes longer than a toy's training: timing of plans, and pictures.

    Commands are made of their signatures once.
    """
    patch.setattr(typer.main, "get_command", _get_command)
    patch.setattr(planner, "time_plan", _slow_unless_called_often)
    if not pictures:
        for name in plots.FIGURES:
            patch.setattr(plots, name, lambda *_, **__: "no axes")
        patch.setattr(plots, "save", _save_nothing)


def _slow_unless_called_often(candidate, surface, point, work, **options):
    """A second for each point, which the planner takes one by one without further trials."""
    if work.calls == 1:
        return 1.0
    return _time_plan(candidate, surface, point, work, **options)


def _save_nothing(_, path):
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"no picture")
    return path
