"""The contract of a method."""

import pytest
import torch

from lowland.errors import ConfigError
from lowland.runs.methods import METHODS
from lowland.runs.methods.base import Method, require_iterates


class Bare(Method):
    name = "bare"
    title = "Bare"


def test_a_method_without_parts_needs_and_trains_nothing(finished):
    method = Bare()
    assert method.label(finished.run) == "Bare"
    assert (list(method.parts(finished.run)), list(method.needs(finished.run))) == ([], [])
    assert method.tune(finished.run, {}).values == {}
    assert (list(method.pictures(finished.run)), list(method.notes(finished.run, {}))) == ([], [])
    method.check(finished.run)
    with pytest.raises(NotImplementedError, match="Bare has no posterior"):
        method.posterior(finished.run, {})


def test_the_scale_is_chosen_on_validation_examples(finished):
    method = finished.method("swag")
    steps = []
    inputs = finished.inputs(method)
    choice = method.tune(finished.run, inputs, lambda *step: steps.append(step))
    done, total = steps[-1]
    assert done == total > 1
    trials = choice.trials
    assert choice.values == {"scale": float(trials.scale[trials.nll.argmin()])}


def test_predictions_follow_the_posterior(finished):
    method, setup = finished.method("sgd"), finished.run.setup
    inputs = finished.inputs(method)
    pred = method.predict(finished.run, inputs, {}, setup.test, False)
    assert torch.equal(pred.probs, finished.results.prediction(method).probs)


def test_too_few_iterates_are_refused(finished):
    require_iterates(finished.run, "SWAG", 2, 2, "start 0.5")
    with pytest.raises(ConfigError, match="SWAG needs 2 iterates or more, and gets 1 of 4 epochs"):
        require_iterates(finished.run, "SWAG", 1, 2, "start 0.5")


def test_every_method_has_a_name_and_a_title_of_its_own():
    titles = [method.title for method in METHODS.values()]
    assert len(set(titles)) == len(titles)
    assert all(method.name == name for name, method in METHODS.items())
