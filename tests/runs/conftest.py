"""One finished run of all methods on a tiny network, shared by the tests of the room."""

import contextlib

import pytest
import yaml

from lowland.artifacts import Graph, Inputs
from lowland.runs.config import read_config
from lowland.runs.plan import RunPlan
from lowland.runs.results import Results
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from tests.cli.inside import lowland

CONFIG = {
    "model": {"name": "lowland.zoo:MLP", "args": {"inputs": 64, "widths": [8], "outputs": 10}},
    "data": {"name": "lowland.zoo:digits", "args": {"train": 0.1, "shift": 0}},
    "methods": [
        "sgd", "temperature", "swa", "ema", "swag", "multiswag", "ensemble", "fge", "laplace",
        "espro", "subspace", "snapshot", "csgld",
    ],
    "ensemble": 2,
    "samples": 3,
    "threads": 1,
    "train": {"epochs": 4, "batch_size": 30, "lr": 0.05},
    "average": {"lr": 0.05, "start": 0.5, "every": 0.5, "rank": 2, "scales": [0.5, 1.0],
                "table": True},
    "fge": {"cycle": 1.0},
    "snapshot": {"cycles": 5},
    "csgld": {"cycles": 2, "members": 2, "explore": 0.5},
    "simplex": {"vertices": 3, "epochs": 1, "samples": 2, "points": 3},
    "subspace": {"rank": 2, "chains": 4, "samples": 5, "warmup": 3, "temperature": 20.0},
    "connect": {"kinds": ["bezier"], "epochs": 1, "points": 5, "resolution": 3},
}  # fmt: skip


def run_in(folder, *settings):
    """Runs the configuration of a folder into its folder `run`, from within."""
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    with contextlib.chdir(folder):
        code, out, err = lowland("run", "config.yaml", "out=run", *settings)
    assert code == 0, err
    return folder / "run", out


class Finished:
    """A finished run: its folder, what the command printed, and its artifacts."""

    def __init__(self, folder, out):
        self.folder, self.out = folder, out
        config = read_config(folder.parent / "config.yaml", [f"out={folder}"])
        setup = Setup(config, RunPlan.read(folder / "plan.json"))
        self.run = Run(config, setup)
        self.results = Results(self.run, folder)
        self.graph = Graph(folder)

    def method(self, name):
        """A method of the run by its name."""
        return next(method for method in self.run.methods if method.name == name)

    def load(self, artifact):
        """The result of an artifact."""
        return self.results.load(artifact)

    def inputs(self, method):
        """The loaded inputs of a method."""
        return Inputs(method.needs(self.run), self.load)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    return Finished(*run_in(tmp_path_factory.mktemp("finished")))


@pytest.fixture
def posterior_of(finished):
    """The posterior of a method of the finished run."""

    def posterior(name):
        return finished.results.posterior(finished.method(name))[0]

    return posterior
