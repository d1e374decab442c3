"""Processes that start with torch imported: forks of a server, one for each test worker.

They wait for the disk no more than the tests do.
"""

import multiprocessing

from lowland.cli.app import COMMANDS

# a process without threads, so that it may fork
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "tests.no_fsync",
        "tests.cli.forked",
        "tests.trajectory.test_store",
        *(f"lowland.cli.{command}" for command in COMMANDS),
        "lowland.runs.methods",
        "sklearn.datasets",
        "torch._dynamo",
    ]
)


def call_in_process(function, *args):
    """What a function of a module returns in a process of its own."""
    return call_in_processes(function, [args])[0]


def call_in_processes(function, calls, seconds=100):
    """What it returns for the arguments of each call, each in a process of its own, all at once.

    A process that does not end in time is killed: waiting for one that hangs outside Python would
    outlast the timeout of the test.

    Raises:
        multiprocessing.TimeoutError: They did not all end in time.
    """
    with SERVER.Pool(len(calls)) as pool:  # leaving it ends its processes
        return pool.starmap_async(function, calls, chunksize=1).get(seconds)
