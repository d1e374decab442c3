"""The command line: one file a command."""

from __future__ import annotations

import os
import sys
import warnings
from typing import NoReturn

from safetensors import SafetensorError

from lowland.errors import LowlandError
from lowland.memory import keep_freed_memory
from lowland_command import STOPPED, stopped


def main() -> None:
    """Entry point: errors that users can mend end in one sentence and exit code 2."""
    try:
        import typer

        from lowland.cli.app import app
        from lowland.cli.console import complain
    except ImportError as error:
        exit_for_missing(error)
    keep_freed_memory()
    warnings.formatwarning = _warning
    try:
        code = typer.main.get_command(app).main(prog_name="lowland", standalone_mode=False) or 0
        if code == STOPPED:  # what typer makes of Ctrl-C
            stopped()
    except LowlandError as error:
        complain(str(error))
        code = 2
    except BrokenPipeError:  # the reader of a pipe has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (OSError, SafetensorError) as error:
        complain(
            f"{error}; check the path, its permissions and the space on the disk, then run the "
            "same command again."
        )
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        stopped()
    except Exception as error:
        from lowland.runs.user_code import error_line, raised_by_user

        show = getattr(error, "show", None)  # usage errors print themselves
        if show is not None:
            show()
            code = getattr(error, "exit_code", 2)
        elif raised_by_user(error):  # a model, data set or task of the user's
            complain(f"{error_line(error)}; mend that, and run the same command again.")
            code = 2
        else:
            raise
    sys.exit(code)


def exit_for_missing(error: ImportError) -> NoReturn:
    """Ends the process for want of a package of the command line."""
    sys.exit(f'lowland: the command line needs {error.name}: pip install "lowland[cli]"')


_format = warnings.formatwarning


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning in the terminal: its text, where it is meant for users and not for programmers."""
    if not issubclass(category, UserWarning):
        return _format(message, category, filename, lineno, line)
    from lowland.cli.console import visible

    return f"lowland: {visible(str(message))}\n"
