"""Two methods in two runs, whose predictions are made by hand."""

import functools

import torch

import lowland as ll
from lowland.artifacts import Graph, Source
from lowland.cli.method_metrics import MethodMetrics, MethodRow
from lowland.cli.ood import Corruption
from lowland.cli.predictions import MethodPredictions
from lowland.core import Classification

TASK = Classification()
CORRUPTIONS = [
    Corruption(kind, n, 0, 20, (0.0,), (1.0,)) for kind in ("contrast", "blur") for n in (4, 2)
]


def prediction(seed, *, quality=1.0, targets=True):
    """Of a network whose logits are its inputs."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(30) % 3
    logits = torch.randn(30, 3, generator=g) + quality * torch.eye(3)[labels]
    surface = ll.LossSurface(torch.nn.Linear(3, 3, bias=False), TASK, [(logits, labels)])
    data = [(logits, labels) if targets else (logits,)]
    return ll.predict(surface, torch.eye(3).flatten(), data)


def method(key, run, quality):
    seed = 100 * run + int(10 * quality)
    preds = {"test": prediction(seed, quality=quality)}
    for i, each in enumerate(CORRUPTIONS, 1):
        preds[each.name] = prediction(seed + i, quality=quality / each.strength)
    preds["ood/noise"] = prediction(seed + 9, quality=0.0, targets=False)
    sets = {
        name: Source(f"{key}-{run}-{name}", pred, {"seed": seed, "set": name})
        for name, pred in preds.items()
    }
    return MethodPredictions(key, key.upper(), sets), preds


@functools.cache
def rows_and_predictions():
    """Two methods in two runs, and their predictions."""
    rows, preds = [], {}
    for key, quality in (("sgd", 1.0), ("swag", 2.0)):
        members = []
        for run in range(2):
            predictions, preds[key, run] = method(key, run, quality)
            members.append(predictions)
        metrics = tuple(
            MethodMetrics(f"seed-{run}", each, CORRUPTIONS, TASK)
            for run, each in enumerate(members)
        )
        rows.append(MethodRow(metrics))
    return rows, preds


def built(tmp_path, artifact):
    graph = Graph(tmp_path)
    graph.build([artifact])
    return graph.load(artifact)
