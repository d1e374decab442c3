"""The command line in a process of its own that has torch already, stopped at the n-th event.

Events are counted, not timed: an optimizer step, a checkpoint that was saved, a file that is about
to take its place (a write that never comes to be), or one that has just done so.
"""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from lowland.artifacts import Checkpoint
from lowland.cli import main
from tests.cli.inside import make_quick
from tests.processes import SERVER


def lowland(*args, folder, event=None, cwd=None, pictures=False):
    """Its exit code (minus the signal that ended it), what it printed, and its errors.

    `event`: what it is stopped at, which time, and by which signal. `folder`: for its output.
    """
    streams = [Path(folder) / name for name in ("stdout.txt", "stderr.txt")]
    process = SERVER.Process(
        target=_run, args=(list(map(str, args)), streams, event, cwd, pictures)
    )
    process.start()
    process.join(110)
    if process.exitcode is None:
        process.kill()
    return process.exitcode, *(stream.read_text(encoding="utf-8") for stream in streams)


def _run(args, streams, event, cwd, pictures):
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if cwd is not None:
        os.chdir(cwd)
    # a shell's background jobs ignore Ctrl-C, and what they start does too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["lowland", *args]
    make_quick(pytest.MonkeyPatch(), pictures=pictures)
    if event is not None:
        stop_at(event[0], event[1], signal.Signals[event[2]])
    main()


def stop_at(event, number, how):
    """Has this process send itself a signal at an event."""
    count = 0

    def happened():
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), how)

    step, save, replace = torch.optim.SGD.step, Checkpoint.save, os.replace

    def stepping(*args, **kwargs):
        result = step(*args, **kwargs)
        if event == "step":
            happened()
        return result

    def saving(*args, **kwargs):
        save(*args, **kwargs)
        if event == "checkpoint":
            happened()

    def replacing(source, target, **kwargs):
        if event == "before-replace":
            happened()
        replace(source, target, **kwargs)
        if event == "after-replace":
            happened()

    torch.optim.SGD.step = stepping
    Checkpoint.save = saving
    os.replace = replacing
