"""Where the command `lowland` begins: outside of the package, whose imports take seconds."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

STOPPED = 130  # what shells give for Ctrl-C
_MESSAGE = "\nlowland: stopped; run the same command again to go on."


def main() -> None:
    """The command line; Ctrl-C ends it in one line, also while torch is imported."""
    try:
        with exit_on_interrupt():
            from lowland.cli import main as run
        run()
    except KeyboardInterrupt:
        stopped()


@contextlib.contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Ctrl-C ends the process at once within: an exception may come up in a callback of an import,
    where it is printed and ignored."""
    before = signal.getsignal(signal.SIGINT)
    try:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, _exit)
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def stopped() -> None:
    """Ends the process as shells end what Ctrl-C stopped."""
    print(_MESSAGE, file=sys.stderr)
    sys.exit(STOPPED)


def _exit(*_: Any) -> None:
    print(_MESSAGE, file=sys.stderr, flush=True)
    os._exit(STOPPED)  # nothing has begun that would have to be ended
