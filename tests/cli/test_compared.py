"""The artifacts of a run that is compared: which methods and baselines, and from which inputs."""

import pytest

from lowland.artifacts import Graph
from lowland.cli.compared import ComparedRun
from lowland.cli.load_runs import load_runs
from lowland.cli.ood import CompareOptions
from lowland.errors import ConfigError
from lowland.runs.results import External


@pytest.fixture
def compared(finished_runs, tmp_path):
    """Makes a compared run from options."""
    (finished,) = load_runs(finished_runs[:1])
    graph = Graph(tmp_path)

    def make(**options):
        return ComparedRun(finished, CompareOptions(**options), is_done=graph.is_done)

    return make


def test_methods_then_baselines_that_fit(compared):
    run = compared(kinds=["contrast"], strengths=(2,), examples=20, baselines=None)
    rows = {row.key: row for row in run.methods()}
    assert list(rows)[:3] == ["sgd", "temperature", "swag"]
    assert "dropout" not in rows
    assert "No row for dropout: the network has no dropout." in run.notes
    for key, row in rows.items():
        assert list(row.sets) == ["test", "corrupted/contrast-2", "ood/noise"]
        assert isinstance(row.test, External) == (key in ("sgd", "swag"))
    assert rows["temperature"].test.inputs[1].name == "seed-0/tuning/sgd"


def test_a_baseline_on_request_that_does_not_fit(compared):
    with pytest.raises(ConfigError, match="--baselines dropout: the network has no dropout"):
        compared(kinds=[], baselines=["dropout"]).methods()


def test_predictions_depend_on_what_the_run_made(compared):
    (sgd, swag) = compared(kinds=["contrast"], strengths=(2,), baselines=[]).methods()
    inputs = {each.name: each for each in swag.sets["corrupted/contrast-2"].inputs}
    assert {"seed-0/train/swa-0", "seed-0/tuning/swag", "seed-0/data/test"} <= set(inputs)
    assert "seed-0/train/sgd-0" not in inputs
    assert "seed-0/ood/noise" in {each.name for each in swag.ood["noise"].inputs}
    again = compared(kinds=["contrast"], strengths=(2,), baselines=[], seed=5).methods()
    same = [row.sets["corrupted/contrast-2"].fingerprint for row in (sgd, swag)]
    assert [row.sets["corrupted/contrast-2"].fingerprint for row in again] == same
    assert again[1].ood["noise"].fingerprint != swag.ood["noise"].fingerprint


def test_test_predictions_are_those_of_the_run(compared, finished_runs, tmp_path):
    (sgd,) = compared(kinds=[], ood=[], baselines=[]).methods()[:1]
    pred = Graph(tmp_path).load(sgd.test)
    assert pred.metrics() == type(pred).load(finished_runs[0] / "records" / "sgd.npz").metrics()
