"""Predictions of several sets in one pass, and pools over runs."""

import torch

from lowland.artifacts import Graph, Source
from lowland.cli.ood import ShiftedSet
from lowland.cli.predictions import (
    MethodPredictions,
    OnePass,
    ShiftedPrediction,
    pooled,
    temperature_scaled,
)
from lowland.core import Classification, Regression
from lowland.records import Predictive
from lowland.runs.predictions import PredictionSettings
from lowland.uncertainty import temper

TASK = Classification()
SETTINGS = PredictionSettings("swag", 3, 0, evaluation={})
G = torch.Generator().manual_seed(0)


def probabilities(count):
    return torch.randn(count, 4, generator=G).softmax(1)


def prediction(probs):
    targets = torch.arange(len(probs)) % 4
    log_prob = probs.gather(1, targets[:, None])[:, 0].log().double()
    return Predictive(
        "classification",
        2,
        probs=probs,
        targets=targets,
        target_log_prob=log_prob,
        task=TASK.to_dict(),
    )


class Method:
    """Returns the loader's examples as probabilities, and counts its passes."""

    def __init__(self):
        self.passes = []

    def __call__(self, loader, progress):
        batches = list(loader)
        self.passes.append(len(batches))
        return prediction(torch.cat(batches))


def shifted(graph, method, sets):
    together = OnePass(method, TASK, is_done=graph.is_done)
    return [
        ShiftedPrediction(
            "seed-0/swag",
            ShiftedSet(name, [probs], len(probs)),
            [],
            SETTINGS,
            title="SWAG",
            together=together,
        )
        for name, probs in sets.items()
    ]


def test_several_sets_are_predicted_in_one_pass_and_each_once(tmp_path):
    graph, method = Graph(tmp_path), Method()
    sets = {f"ood/{name}": probabilities(size) for name, size in (("a", 3), ("b", 5))}
    artifacts = shifted(graph, method, sets)
    graph.build(artifacts)
    assert method.passes == [2]
    for artifact, probs in zip(artifacts, sets.values(), strict=True):
        assert torch.equal(graph.load(artifact).probs, probs)
    sets["ood/c"] = probabilities(2)
    artifacts = shifted(graph, method, sets)
    graph.build(artifacts)
    assert method.passes == [2, 1]
    assert torch.equal(graph.load(artifacts[2]).probs, sets["ood/c"])


def given(name, value):
    return Source(name, value, {"name": name})


def test_a_temperature_is_applied_to_every_set(tmp_path):
    preds = {name: prediction(probabilities(6)) for name in ("test", "ood/noise")}
    sgd = MethodPredictions("sgd", "SGD", {name: given(name, p) for name, p in preds.items()})
    tuning = given("tuning/sgd", {"temperature": 2.5})
    row = temperature_scaled(sgd, tuning, prefix="seed-0", task=TASK)
    graph = Graph(tmp_path)
    graph.build(list(row.sets.values()))
    assert list(row.ood) == ["noise"]
    assert row.test.name == "predictions/seed-0/temperature/test"
    for name, pred in preds.items():
        assert torch.equal(graph.load(row.sets[name]).probs, temper(pred, 2.5).probs)


def test_a_pool_averages_probabilities_over_runs(tmp_path):
    probs = [probabilities(6) for _ in range(3)]
    runs = [
        MethodPredictions("sgd", "SGD", {"test": given(f"test-{i}", prediction(each))})
        for i, each in enumerate(probs)
    ]
    row = pooled("pool", runs, task=TASK)
    assert (row.key, row.components) == ("pooled-sgd", None)
    graph = Graph(tmp_path)
    graph.build([row.test])
    torch.testing.assert_close(graph.load(row.test).probs, torch.stack(probs).mean(0))


def test_a_pool_of_regressions_has_all_components_and_counts_one_network_as_its_gaussian(tmp_path):
    task = Regression()

    def gaussian(mean, variance):
        return Predictive(
            "regression", 1, mean=torch.full((4, 1), mean), variance=torch.full((4, 1), variance)
        )

    tests = [gaussian(0.0, 1.0), gaussian(2.0, 3.0)]
    mixture = torch.full((1, 4, 1), 5.0), torch.ones(1, 4, 1)
    runs = [
        MethodPredictions("sgd", "SGD", {"test": given("test-0", tests[0])}, given("none", None)),
        MethodPredictions("sgd", "SGD", {"test": given("test-1", tests[1])}, given("mix", mixture)),
    ]
    row = pooled("pool", runs, task=task)
    graph = Graph(tmp_path)
    graph.build([row.components])
    means, variances = graph.load(row.components)
    assert means[:, 0, 0].tolist() == [0.0, 5.0]
    assert variances[:, 0, 0].tolist() == [1.0, 1.0]
