"""What a method chooses on validation examples."""

import json

import pytest

from lowland.records import Table
from lowland.uncertainty import fit_temperature


def test_the_scale_is_the_best_of_its_trials(finished):
    tuned = finished.load(finished.run.tuning(finished.method("swag")))
    trials = Table.load(finished.folder / "records" / "trials-swag.json")
    assert trials.scale.tolist() == [0.5, 1.0]
    assert tuned["scale"] == float(trials.scale[trials.nll.argmin()])
    assert json.loads((finished.folder / "records" / "tuned-swag.json").read_text()) == tuned


def test_the_temperature_is_fitted_to_validation_examples(finished):
    method, setup = finished.method("sgd"), finished.run.setup
    tuned = finished.load(finished.run.tuning(method))
    inputs = finished.inputs(method)
    pred = method.predict(finished.run, inputs, {}, setup.validation, False)
    assert tuned == {"temperature": pytest.approx(fit_temperature(pred, task=setup.task))}
    assert not (finished.folder / "records" / "trials-sgd.json").exists()
