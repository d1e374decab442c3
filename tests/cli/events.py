"""Runs the command line and stops it at the n-th event: `python events.py EVENT N SIGNAL ARGS...`.

Events are counted, not timed: an optimizer step, a file that is about to take its place (a write
that never comes to be), or one that has just done so.
"""

import os
import signal
import sys

import torch

from lowland.cli import main


def arrange(event: str, number: int, how: signal.Signals) -> None:
    """Has this process send itself a signal at an event."""
    count = 0

    def happened() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), how)

    step, replace = torch.optim.SGD.step, os.replace

    def stepping(*args, **kwargs):
        result = step(*args, **kwargs)
        if event == "step":
            happened()
        return result

    def replacing(source, target, **kwargs):
        if event == "before-replace":
            happened()
        replace(source, target, **kwargs)
        if event == "after-replace":
            happened()

    torch.optim.SGD.step = stepping
    os.replace = replacing


if __name__ == "__main__":
    # a shell's background jobs ignore Ctrl-C, and what they start does too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arrange(sys.argv[1], int(sys.argv[2]), signal.Signals[sys.argv[3]])
    sys.argv = ["lowland", *sys.argv[4:]]
    main()
