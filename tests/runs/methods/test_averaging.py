"""Methods that average iterates, where the learning rate is chosen: SGD is a candidate."""

import pytest
import torch

from lowland.artifacts import Graph, Inputs
from lowland.posteriors import Ensemble, Gaussian, PointMass
from lowland.runs.average_choice import CONSTANT, SCHEDULE, SGD
from tests.runs.test_segments import run_of

METHODS = ["sgd", "ema", "swa", "swag", "fge", "multiswag"]


@pytest.fixture(scope="module")
def run():
    return run_of(methods=METHODS)


@pytest.fixture(scope="module")
def graph(run, tmp_path_factory):
    graph = Graph(tmp_path_factory.mktemp("tuned"))
    graph.build([each for method in run.methods for each in method.needs(run)])
    return graph


def inputs_of(run, graph, name):
    method = next(method for method in run.methods if method.name == name)
    return method, Inputs(method.needs(run), graph.load)


def test_candidates_of_swag_are_both_branches_at_each_scale(run, graph):
    swag, inputs = inputs_of(run, graph, "swag")
    names = list(swag.candidates(run, inputs))
    assert names == [f"{b}, scale {s:g}" for b in (SCHEDULE, CONSTANT) for s in (0.5, 1.0)]
    selection = swag.compare(run, inputs).selection
    assert selection.names == [SGD, *names]
    assert selection.default == SGD
    for number, scale in enumerate([0.0, 0.5, 1.0, 0.5, 1.0]):
        post = swag.scaled(run, inputs, {"candidate": number, "scale": scale})
        assert isinstance(post, Gaussian if number else PointMass)
        assert number == 0 or post.scale == scale
    mean = graph.load(run.annealed(0)).iterates.average().weights
    torch.testing.assert_close(swag.scaled(run, inputs, {"candidate": 2}).mean, mean)


def test_what_is_chosen_is_never_worse_than_sgd_on_validation_examples(run, graph):
    for name in METHODS[1:]:
        method, inputs = inputs_of(run, graph, name)
        steps = []
        choice = method.tune(run, inputs, lambda *step, steps=steps: steps.append(step))
        if choice.trials is None:  # of EMA and SWA the weights are an artifact
            continue
        assert steps[-1][0] > 1  # passes, whose total is not known before
        best = int(choice.values["candidate"])
        assert choice.trials.difference[best] <= 0
        assert best == 0 or choice.trials.difference[best] < -choice.trials.difference_se[best]


def test_where_nothing_is_better_sgd_stays(run, graph):
    for name, kind in [("fge", PointMass), ("multiswag", Ensemble)]:
        method, inputs = inputs_of(run, graph, name)
        post = method.scaled(run, inputs, {"candidate": 0.0})
        assert isinstance(post, kind)
        expected = graph.load(run.annealed(0)).point.weights
        assert torch.equal(post.point(0).weights, expected)


def test_the_average_of_swa_is_one_of_the_candidates(run, graph):
    average = run.average(0, "swa")
    point = graph.load(average)
    annealed = graph.load(run.annealed(0))
    iterates = [*annealed.iterates, *graph.load(run.averaged(0)).iterates]
    weights = torch.stack([each.weights for each in iterates]).double()
    half = len(weights) // 2
    tails = [
        branch[-length:].mean(0)
        for branch in (weights[:half], weights[half:])
        for length in range(1, half + 1)
    ]
    errors = [float((tail - point.weights).abs().max()) for tail in tails]
    errors.append(float((annealed.point.weights - point.weights).abs().max()))
    assert min(errors) < 1e-5


def test_with_a_learning_rate_of_its_own_nothing_is_compared():
    explicit = run_of(0.05, methods=["swag", "fge"])
    for method in explicit.methods:
        names = [part.artifact.name for part in method.parts(explicit)]
        assert names in (["train/swa-0"], ["train/swa-0", "train/fge-0"])
        assert not any("sgd" in each.name for each in method.needs(explicit))


def test_what_was_compared_is_not_predicted_again(run, graph, monkeypatch):
    fge, inputs = inputs_of(run, graph, "fge")
    choice = fge.tune(run, inputs)
    pred = fge.predict(run, inputs, choice.values, run.setup.validation, False)
    assert torch.equal(choice.nll, -pred.target_log_prob.double())
    # SWAG is compared by fewer draws than it predicts with
    swag, inputs = inputs_of(run, graph, "swag")
    monkeypatch.setattr("lowland.runs.methods.averaging._SAMPLES", 2)
    values = swag.tune(run, inputs)
    assert (values.nll is None) == (values.values["candidate"] > 0)
