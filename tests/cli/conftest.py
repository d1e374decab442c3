"""Small runs that tests of commands share."""

import pytest
import yaml

from tests.cli.inside import lowland

CONFIG = {
    "model": {"name": "lowland.zoo:ConvNet", "args": {"widths": [4], "classes": 10}},
    "data": {"name": "lowland.zoo:digits", "args": {"train": 0.1, "shift": 1}},
    "methods": ["sgd", "swag"],
    "samples": 3,
    "threads": 1,
    "train": {"epochs": 4, "batch_size": 30, "lr": 0.1},
    "average": {"lr": 0.1, "start": 0.5, "every": 0.5, "rank": 2, "scales": [0.5]},
}


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory):
    """Two runs of SGD and SWAG that differ in their seed; read them, and write elsewhere."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    runs = [folder / f"r{seed}" for seed in (0, 1)]
    for seed, run in enumerate(runs):
        code, _, err = lowland("run", folder / "config.yaml", f"out={run}", f"seed={seed}")
        assert code == 0, err
    return runs
