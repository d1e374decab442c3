"""Run folders that fit together are loaded; others are refused in one sentence."""

import pytest

from lowland.cli.load_runs import load_runs
from lowland.cli.trust import UntrustedError
from lowland.core.options import Plan
from lowland.errors import ConfigError
from lowland.runs.config import check_config
from lowland.runs.folder import RunFolder
from lowland.runs.plan import RunPlan

PLAN = RunPlan(2, Plan("vmap", 16, 1), Plan("points", 1, 2))
BODY = {
    "model": {"name": "lowland.zoo:ConvNet", "args": {"widths": [4], "classes": 10}},
    "data": {"name": "lowland.zoo:digits"},
    "methods": ["sgd"],
}


def write_run(path, *, records=("sgd.json", "sgd.npz"), **changes):
    """A folder as `lowland run` leaves it, with empty records."""
    path.joinpath("records").mkdir(parents=True)
    RunFolder(path).write(check_config(BODY | changes, where="test"))
    PLAN.write(path / "plan.json")
    for name in records:
        (path / "records" / name).touch()
    return path


def test_runs_that_differ_in_the_seed(tmp_path):
    paths = [write_run(tmp_path / f"r{seed}", seed=seed) for seed in (3, 4)]
    first, last = load_runs(paths, trust=True)
    assert (first.config.seed, last.config.seed, first.plan) == (3, 4, PLAN)
    assert (first.name, first.folder.path) == (str(paths[0]), paths[0])
    (alone,) = load_runs(paths[:1], trust=True)
    assert alone.name == "r3"


def test_code_that_was_not_run_here_needs_trust(tmp_path):
    path = write_run(tmp_path / "r", model={"name": "nobody.has_run:this"})
    with pytest.raises(UntrustedError, match=r"nobody\.has_run:this"):
        load_runs([path])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1, "samples": 7}, "runs with other settings .samples: "),
        ({}, "have the same seed, 0, and would count twice"),
        ({"seed": 1, "records": ("sgd.json",)}, "is not done: .*sgd.npz is missing"),
    ],
)
def test_runs_that_do_not_fit_together(tmp_path, changes, message):
    paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", **changes)]
    with pytest.raises(ConfigError, match=message):
        load_runs(paths, trust=True)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a run folder: it holds no config.yaml"):
        load_runs([tmp_path], trust=True)
