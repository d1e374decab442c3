"""A configuration as a graph of artifacts."""

import pytest

from lowland.artifacts import Source
from lowland.artifacts.order import ordered
from lowland.errors import ConfigError
from lowland.runs.config import check_config
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from tests.runs.conftest import CONFIG


def test_everything_of_a_finished_run_is_done(finished):
    targets = finished.run.targets()
    assert finished.graph.needed(targets) == []
    assert all(not each.intermediate and not isinstance(each, Source) for each in targets)


def test_an_artifact_is_made_once(finished):
    run = finished.run
    assert run.annealed(0) is run.annealed(0)
    assert run.annealed(0) is not run.annealed(1)
    assert run.average(0, "swa") is not run.average(0, "ema")


def test_a_method_trains_nothing_that_it_does_not_need():
    run = Run(check_config(CONFIG | {"methods": ["sgd"]}, where="here"), setup := _setup("sgd"))
    names = {each.name for each in ordered(run.targets())}
    assert setup.config.methods == ["sgd"]
    assert "train/sgd-0" in names
    assert not any(name.startswith(("train/swa", "train/fge", "simplex")) for name in names)
    assert run.trains_annealed()
    assert not run.trains_trajectory()


def test_evaluation_settings_are_in_the_fingerprint_of_predictions(finished):
    other = Run(finished.run.config.model_copy(update={"bn_rows": 7}), finished.run.setup)
    method = finished.method("sgd")
    assert other.evaluation()["bn_rows"] == 7
    assert other.prediction(method).fingerprint != finished.run.prediction(method).fingerprint


def test_a_budget_with_too_few_iterates_is_refused():
    average = CONFIG["average"] | {"start": 0.9, "every": 4}
    setup = _setup("swag", average=average)
    with pytest.raises(ConfigError, match="SWAG needs 2 iterates or more"):
        Run(setup.config, setup).check()


def _setup(method, **settings):
    return Setup(check_config(CONFIG | {"methods": [method]} | settings, where="here"))
