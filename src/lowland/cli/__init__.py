"""The command line: one file a command."""

from __future__ import annotations

import os
import sys

from safetensors import SafetensorError

from lowland.errors import LowlandError
from lowland.memory import keep_freed_memory

STOPPED = 130  # what shells give for Ctrl-C


def main() -> None:
    """Entry point: errors that users can mend end in one sentence and exit code 2."""
    try:
        import typer

        from lowland.cli.app import app
    except ImportError as error:
        sys.exit(f'lowland: the command line needs {error.name}: pip install "lowland[cli]"')
    keep_freed_memory()
    try:
        code = typer.main.get_command(app).main(prog_name="lowland", standalone_mode=False) or 0
    except LowlandError as error:
        print(f"lowland: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # the reader of a pipe has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (OSError, SafetensorError) as error:
        print(
            f"lowland: {error}; check the path, its permissions and the space on the disk, then "
            "run the same command again.",
            file=sys.stderr,
        )
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    except Exception as error:
        from lowland.cli.config import told, users_own

        show = getattr(error, "show", None)  # usage errors print themselves
        if show is not None:
            show()
            code = getattr(error, "exit_code", 2)
        elif users_own(error):  # a model, data set or task of the user's
            print(
                f"lowland: {told(error)}; mend that, and run the same command again.",
                file=sys.stderr,
            )
            code = 2
        else:
            raise
    if code == STOPPED:
        print("\nlowland: stopped; run the same command again to go on.", file=sys.stderr)
    sys.exit(code)
