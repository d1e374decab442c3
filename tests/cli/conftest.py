"""Small runs that tests of commands share."""

import pytest

from tests.cli.inside import lowland
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


CURVES_CONFIG = {
    "model": {"name": "lowland.zoo:ConvNet", "args": {"widths": [6], "classes": 10}},
    "data": {"name": "lowland.zoo:digits", "args": {"train": 0.15, "shift": 1}},
    "methods": ["sgd", "swa", "ensemble"],
    "ensemble": 2,
    "samples": 3,
    "threads": 1,
    "train": {"epochs": 20, "batch_size": 30, "lr": 0.1},
    "average": {"lr": 0.1, "start": 0.5, "every": 1},
}
CURVES = ["--kind", "bezier,chain", "--lr", 0.1, "--epochs", 60, "--points", 9, "--align"]


@pytest.fixture(scope="module")
def connected_run(tmp_path_factory):
    """A run of two annealed networks and an SGD trajectory, joined by both curves."""

    def make(folder):
        path, _ = made(folder, "one", CURVES_CONFIG)
        code, out, err = lowland("connect", path, *CURVES, pictures=True)
        assert code == 0, err
        assert "Polygonal chain" in out

    return copy_of(tmp_path_factory, "connect", make) / "one"
