"""What a run builds again makes the stages stale that were made from it."""

import shutil

import pytest

from lowland.artifacts.nodes import read_graph
from lowland.cli.origins import ORIGINS, changed_origins, write_origins
from tests.cli import shared
from tests.cli.inside import lowland
from tests.cli.test_trust import SMALL

CONNECT = ["--epochs", 1, "--points", 3, "--examples", 20]


@pytest.fixture
def run(tmp_path_factory):
    def make(folder):
        shared.made(folder, "one", SMALL)

    return shared.copy_of(tmp_path_factory, "trust", make) / "one"


def test_other_weights_of_the_run_are_other_origins(run):
    stage = run / "connect"
    write_origins(stage, {"weights/sgd-0": [(run, "weights/sgd-0.safetensors")], "none": []})
    assert changed_origins(stage) == {}
    graph = run / "graph.json"
    (fingerprint,) = [n["fingerprint"] for n in read_graph(run) if n["name"] == "train/sgd-0"]
    graph.write_text(graph.read_text().replace(fingerprint, "0" * len(fingerprint)))
    assert changed_origins(stage) == {"weights/sgd-0": f"other train/sgd-0 in {run}"}
    shutil.rmtree(run / "artifacts")
    assert changed_origins(stage) == {
        "weights/sgd-0": f"{run / 'weights/sgd-0.safetensors'} is gone"
    }
    (stage / ORIGINS).unlink()
    assert changed_origins(stage) == {}


def test_status_shows_stages_in_the_tree_of_the_run_and_what_is_stale(run):
    code, _, err = lowland("connect", run, *CONNECT)
    assert code == 0, err
    scan = ["--plane", "sgd-0,sgd-1", "--resolution", 2, "--examples", 20]
    assert lowland("scan", run, *scan)[0] == 0
    _, out, _ = lowland("status", run)
    assert out.count(str(run)) == 1  # one tree
    assert "connect/" in out
    assert "scan/sgd-0-sgd-1/" in out
    assert "stale" not in out
    code, _, err = lowland("run", run.parent / "one.yaml", f"out={run}", "train.lr=0.05")
    assert code == 0, err
    _, out, _ = lowland("status", run)
    assert f"curve/line  stale: other train/sgd-0 in {run}" in out
    assert "path/line  stale: other curve/line" in out
    assert "scan/sgd-0-sgd-1/train  stale: other train/sgd-0" in out
    code, out, err = lowland("connect", run, *CONNECT)
    assert code == 0, err
    assert "curve/line is built again (other weights/sgd-0" in out
    _, out, _ = lowland("status", run)
    assert "curve/line  done" in out
