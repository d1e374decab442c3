"""Forks that kill themselves at their n-th event, for every n, while they write a trajectory."""

import os
import signal
from pathlib import Path

import torch

from lowland import Trajectory
from lowland.trajectory import store
from tests.trajectory.test_store import append_the_rest, filled


def kill_at_every_event(base, work):
    """How many events a fork was killed at. `work` is "make", "append" or "rewind"."""
    torch.set_num_threads(1)
    for deadly in range(1, 1000):
        path = base / f"{deadly:03d}"
        if work == "append":
            filled(path, 1)
        child = os.fork()
        if child == 0:
            try:
                _write(path, work, deadly)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return deadly - 1
    raise AssertionError("a thousand events, and no end")


def _write(path, work, deadly):
    """Writes three iterates; lines of a second file list what is done."""
    count = 0

    def event():
        nonlocal count
        count += 1
        if count == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def with_events(original):
        def call(*arguments, **keywords):
            event()
            out = original(*arguments, **keywords)
            event()
            return out

        return call

    for module, name in [(os, "replace"), (os, "fsync"), (os, "unlink"), (store, "save_sorted"),
                         (store, "checksum"), (Path, "unlink")]:  # fmt: skip
        setattr(module, name, with_events(getattr(module, name)))
    with open(f"{path}.done", "w") as done:
        traj = Trajectory.open(path) if work == "append" else filled(path, 0)
        for n in range(len(traj) + 1, 4):
            append_the_rest(traj, n)
            print(n, file=done, flush=True)
        if work == "rewind":
            traj.rewind(10)
            print("rewound", file=done, flush=True)
