"""A configuration as a graph of artifacts."""

import pytest
import torch
from safetensors.torch import load_file

import lowland
from lowland.artifacts import Graph, Inputs, Source
from lowland.artifacts.order import ordered
from lowland.errors import ConfigError
from lowland.evaluate import predict
from lowland.posteriors.base import draw_count
from lowland.runs.best import advice
from lowland.runs.config import check_config
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from lowland.runs.training import optimizer_of, schedule_of
from lowland.train import Batches
from tests.runs.conftest import CONFIG
from tests.runs.test_segments import run_of


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
    with pytest.raises(ConfigError, match=r"SWAG needs 2 .* after step 24, and SGD takes 24 steps"):
        Run(setup.config, setup).check()


def _setup(method, **settings):
    return Setup(check_config(CONFIG | {"methods": [method]} | settings, where="here"))


# -- trained again on all examples -----------------------------------------------------------------


@pytest.fixture(scope="module")
def retrained(tmp_path_factory):
    average = CONFIG["average"] | {"retrain": True, "table": False}
    run = run_of(methods=["sgd", "ema", "swa", "swag", "fge"], average=average)
    graph = Graph(tmp_path_factory.mktemp("retrained"))
    graph.build(run.targets())
    return run, graph


def test_networks_are_trained_again_on_all_examples(retrained):
    run, graph = retrained
    train, setup = run.config.train, run.setup
    held_out, whole = (each.data["train"] for each in (setup.held_out, setup))
    assert torch.equal(whole[0], torch.cat([held_out[0], setup.data["validation"][0]]))
    model = setup.model(0)
    lowland.sgd(
        model,
        setup.task,
        Batches(whole, batch_size=train.batch_size, seed=setup.seed(0)),
        epochs=train.epochs,
        optimizer=optimizer_of(train),
        schedule=schedule_of(train, run.budget.total),
        seed=setup.seed(0),
    )
    trained = graph.load(run.annealed(0))
    assert torch.equal(trained.point.weights, setup.layout.flatten(model))
    assert "nll" not in trained.log.columns
    assert (run.annealed(0).title, run.search.annealed(0).title) == ("SGD 1, all examples", "SGD 1")
    assert (graph.folder / "weights" / "retrained-sgd-0.safetensors").is_file()


def test_what_is_trained_again_follows_the_choices_without_validation_examples(retrained):
    run, graph = retrained
    plain = run_of(methods=["sgd", "ema", "swa", "swag", "fge"])
    searched = {each.name: each.fingerprint for each in ordered(run.targets())}
    for each in (plain.averaged(0), plain.learning_rate(), *map(plain.tuning, plain.methods)):
        assert searched[each.name] == each.fingerprint  # done, if the run was there before
    lr = graph.load(run.averaged(0)).log.columns["lr"]
    assert graph.load(run.cycles(0)).cycles.split == "training"
    assert graph.load(plain.cycles(0)).cycles.split == "validation"
    selection = graph.load(plain.learning_rate())
    assert lr.tolist() == [pytest.approx(plain.learning_rate().best_trial(selection).lr)] * 2
    for method in run.methods:
        tuned = graph.load(plain.tuning(method))
        inputs = Inputs(method.needs(run), graph.load)
        assert all("retrained" in each.name for each in method.needs(run))
        post = method.scaled(run, inputs, tuned)
        samples = draw_count(post, 3)
        pred = predict(run.setup.surface, post, run.setup.test, samples=samples, seed=0)
        row = graph.load(run.row(method))
        assert float(row.nll[0]) == pred.metrics()["nll"]
        assert float(row.temperature[0]) == tuned["temperature"]


def test_both_trainings_are_charged(retrained):
    run, graph = retrained
    table = graph.load(run.comparison())
    plain = run_of(methods=["sgd", "ema", "swa", "swag", "fge"])
    ratio = run.budget.epoch / plain.budget.epoch
    assert run.relative_epoch == ratio > 1
    for i, method in enumerate(plain.methods):
        search = sum(part.artifact.passes({}) for part in plain.parts(method))
        again = 4 if method.name == "sgd" else 6  # SGD, and averages from half of its epochs on
        assert float(table.epochs[i]) == pytest.approx(search + again * ratio)
        assert float(table.tuning_epochs[i]) == pytest.approx(search + (again - 4) * ratio)
    choice = graph.load(run.best())
    assert choice["retrained"]
    assert "trained again on all examples" in advice(choice)
    method = next(m for m in run.methods if m.label(run) == choice["method"])
    inputs = Inputs(method.needs(run), graph.load)
    post = method.scaled(run, inputs, graph.load(run.tuning(method)))
    if post.support == 1:
        file = graph.folder / "best" / "model.safetensors"
        assert torch.equal(run.setup.layout.flatten(load_file(file)), post.point(0).weights)


@pytest.mark.parametrize("method", ["laplace", "subspace"])
def test_methods_that_read_validation_examples_later_are_refused(method):
    average = CONFIG["average"] | {"retrain": True}
    with pytest.raises(ConfigError, match=r"average\.retrain trains on them"):
        run_of(0.05, methods=[method], average=average).check()
