"""Processes that start with torch imported: forks of a server, one for each test worker.

They wait for the disk no more than the tests do.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

# a process without threads, so that it may fork
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "tests.no_fsync",
        "tests.cli.forked",
        "tests.trajectory.test_store",
        "lowland.cli.app",
        "lowland.runs.methods",
        "sklearn.datasets",
        "torch._dynamo",
    ]
)


def call_in_process(function, *args):
    """What a function of a module returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=SERVER) as pool:
        return pool.submit(function, *args).result()
