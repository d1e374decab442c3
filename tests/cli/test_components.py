"""Mixtures of regressions, pooled over runs."""

import torch

from lowland.artifacts import Graph, Source
from lowland.cli.predictions import MethodPredictions, pooled
from lowland.core import Regression
from lowland.records import Predictive


def given(name, value):
    return Source(name, value, {"name": name})


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
