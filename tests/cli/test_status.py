"""`lowland status`: what a run folder holds, without calling anything."""

import shutil
import sys

import pytest
import yaml

from lowland.artifacts.places import leases_of, manifests
from lowland.cli.status import size_text
from tests.cli.inside import lowland

OWN = """
from lowland.zoo import digits
calls = []
def data(**args):
    calls.append(args)
    return digits(train=0.1, **args)
"""
CONFIG = {
    "model": {"name": "lowland.zoo:ConvNet", "args": {"widths": [4], "classes": 10}},
    "data": {"name": "counted_data:data", "args": {"shift": 1}},
    "methods": ["sgd", "swag"],
    "samples": 2,
    "threads": 1,
    "train": {"epochs": 2, "batch_size": 60},
    "average": {"lr": 0.05, "start": 0.5, "every": 0.5, "rank": 2, "scales": [0.5]},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run, and its configuration."""
    folder = tmp_path_factory.mktemp("status")
    (folder / "counted_data.py").write_text(OWN)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    code, _, err = lowland("run", folder / "config.yaml", f"out={folder / 'r'}")
    assert code == 0, err
    return folder


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole / "r", tmp_path / "r")
    return tmp_path / "r"


def test_a_finished_run_is_a_tree_of_done_artifacts(run, whole):
    before = len(sys.modules["counted_data"].calls)
    code, out, err = lowland("status", run)
    assert code == 0, err
    assert len(sys.modules["counted_data"].calls) == before  # no code of the user's was called
    lines = out.splitlines()
    assert any(line.startswith("data/train: by: all ") for line in lines)
    (train,) = [line for line in lines if "train/sgd-0" in line and "(above)" not in line]
    assert "done, " in train
    assert "B, " in train  # its size
    assert lines[-1].endswith("B.")
    assert " done; " in lines[-1]
    assert "missing" not in lines[-1]


def test_what_is_under_way_is_reported_with_its_process(run):
    place = next(m.folder for m in manifests(run) if m.body["name"] == "train/swa-0")
    with leases_of(run).hold(place.name, "train/swa-0") as lease:
        lease.done, lease.total = 3, 10
        lease.write()
        _, out, _ = lowland("status", run)
    assert "train/swa-0  under way in process" in out
    assert ": 3 of 10" in out


def test_what_a_change_makes_stale_is_named(run, whole):
    """A run with other settings that was stopped before it began to train."""
    config = whole / "config.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lowland.runs.training.sgd", _stopped)
        assert lowland("run", config, f"out={run}", "average.lr=0.02")[0] == 130
    _, out, _ = lowland("status", run)
    assert "train/swa-0  started" in out
    assert "tuning/swag  stale: other train/swa-0" in out
    (place,) = (run / "artifacts" / ".work").iterdir()
    shutil.rmtree(place)
    _, out, _ = lowland("status", run)
    assert "train/swa-0  stale: average.lr: 0.05 there, 0.02 now" in out


def _stopped(*args, **options):
    raise KeyboardInterrupt


def test_a_folder_without_a_graph_is_reported(tmp_path):
    code, _, err = lowland("status", tmp_path)
    assert code == 2
    assert "holds no graph.json" in err


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (5 << 40, "5.0 TB")])
def test_sizes(size, text):
    assert size_text(size) == text
