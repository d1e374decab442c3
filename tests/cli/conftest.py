"""Small runs that tests of commands share."""

import pytest

from tests.cli.shared import copy_of, made

CONFIG = {
    "model": {"name": "lowland.zoo:ConvNet", "args": {"widths": [4], "classes": 10}},
    "data": {"name": "lowland.zoo:digits", "args": {"train": 0.1, "shift": 1}},
    "methods": ["sgd", "swag"],
    "samples": 3,
    "threads": 1,
    "train": {"epochs": 4, "batch_size": 30, "lr": 0.1},
    "average": {"lr": 0.1, "start": 0.5, "every": 0.5, "rank": 2, "scales": [0.5]},
}


def copy_of_two_runs(tmp_path_factory):
    """A folder with runs r0 and r1 of SGD and SWAG, which differ in their seed."""

    def make(folder):
        for seed in (0, 1):
            made(folder, f"r{seed}", CONFIG, f"seed={seed}")

    return copy_of(tmp_path_factory, "two-runs", make)


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory):
    """Two runs; read them, and write elsewhere."""
    folder = copy_of_two_runs(tmp_path_factory)
    return [folder / "r0", folder / "r1"]
