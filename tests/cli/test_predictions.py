"""Predictions of several sets in one pass, and pools over runs."""

import torch

from lowland.artifacts import Graph, Source
from lowland.cli.ood import ShiftedSet
from lowland.cli.predictions import MethodPredictions, OnePass, pooled, temperature_scaled
from lowland.core import Classification
from lowland.records import Predictive
from lowland.uncertainty import temper

TASK = Classification()
SETTINGS = {"evaluation": {}, "method": "swag", "samples": 3, "seed": 0}
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
        together.add(
            "seed-0/swag", ShiftedSet(name, [probs], len(probs)), [], SETTINGS, title="SWAG"
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
