"""Predictions, rows and the comparison of a small run, against predicting with its posteriors."""

import math

import pytest
import torch

import lowland as ll
from lowland.artifacts import Graph, Inputs
from lowland.records import Table
from lowland.runs.config import check_config
from lowland.runs.predictions import table_metrics
from lowland.runs.run import Run
from lowland.runs.setup import Setup

BODY = {
    "model": {"name": f"{__name__}:net"},
    "data": {"name": f"{__name__}:splits"},
    "methods": ["sgd", "swag"],
    "samples": 3,
    "threads": 1,
    "train": {"epochs": 4, "batch_size": 20, "lr": 0.2},
    "average": {"lr": 0.2, "start": 0.5, "every": 0.5, "rank": 2, "scales": [0.5, 1.0]},
}


def net():
    return torch.nn.Linear(4, 3)


def splits():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(90, 4, generator=g)
    y = (x @ torch.randn(4, 3, generator=g) + torch.randn(90, 3, generator=g)).argmax(1)
    names = "train", "validation", "test"
    return dict(zip(names, zip(x.split(30), y.split(30), strict=True), strict=True))


def run_of(**changes):
    config = check_config(BODY | changes, where="test")
    return Run(config, Setup(config))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run, graph = run_of(), Graph(tmp_path_factory.mktemp("run"))
    graph.build([run.comparison()])
    return run, graph


def row_of(table, method):
    return next(row for row in table.rows() if row["method"] == method)


def test_a_prediction_is_of_the_posterior_at_the_scale_that_was_chosen(finished):
    run, graph = finished
    method = run.methods[1]
    tuned = graph.load(run.tuning(method))
    inputs = Inputs(method.needs(run), graph.load)
    post = method.posterior(run, inputs).with_scale(tuned["scale"])
    pred = ll.predict(run.setup.surface, post, run.setup.test, samples=3, seed=0)
    assert torch.equal(graph.load(run.prediction(method)).probs, pred.probs)
    table = graph.load(run.comparison())
    row = row_of(table, "SWAG")
    for name, value in table_metrics(pred).items():
        assert row[name] == value, name
    assert (row["scale"], row["samples"]) == (tuned["scale"], 3)
    assert row["epochs"] == 4


def test_a_row_has_the_metrics_after_temperature_scaling(finished):
    run, graph = finished
    method = run.methods[0]
    pred, tuned = graph.load(run.prediction(method)), graph.load(run.tuning(method))
    scaled = ll.temper(pred, tuned["temperature"]).metrics()
    row = row_of(graph.load(run.comparison()), "SGD")
    assert (row["nll_tempered"], row["ece_tempered"]) == (scaled["nll"], scaled["ece"])
    assert math.isnan(row["scale"])


def test_the_table_has_the_rows_of_the_methods_in_their_order(finished):
    run, graph = finished
    table = Table.load(graph.folder / "records" / "comparison.json")
    assert table.method == ["SGD", "SWAG"]
    other = run_of(methods=["swag", "sgd"])
    assert other.comparison().fingerprint != run.comparison().fingerprint
    for one, another in zip(run.methods, reversed(other.methods), strict=True):
        assert other.row(another).fingerprint == run.row(one).fingerprint


def test_more_samples_change_the_predictions_and_not_what_was_trained(finished):
    run, other = finished[0], run_of(samples=4)
    mine, theirs = (each.prediction(each.methods[1]) for each in (run, other))
    assert mine.fingerprint != theirs.fingerprint
    assert run.averaged(0).fingerprint == other.averaged(0).fingerprint
