"""Test metrics of averages, against predicting with each of them."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.artifacts import Graph
from lowland.cli.average_graph import AverageGraph, AverageOptions
from lowland.cli.average_metrics import AverageEvaluator
from lowland.cli.average_moments import CheckpointSet
from lowland.cli.checkpoints import select_checkpoints
from lowland.errors import LayoutError
from lowland.runs.config import check_config

BODY = {
    "model": {"name": f"{__name__}:net"},
    "data": {"name": f"{__name__}:splits"},
    "samples": 3,
    "average": {"scales": [0.5, 1.0]},
}


def net(width=5):
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3))


def splits():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(90, 4, generator=g)
    y = (x @ torch.randn(4, 3, generator=g)).argmax(1)
    names = "train", "validation", "test"
    return dict(zip(names, zip(x.split(30), y.split(30), strict=True), strict=True))


def evaluator(state):
    return AverageEvaluator(check_config(BODY, where="test"), state, None)


def states(count):
    torch.manual_seed(0)
    nets = [net() for _ in range(count)]
    for one in nets:
        one(torch.randn(20, 4))  # for statistics
    return [one.state_dict() for one in nets]


def average_of(folder, checkpoints, **options):
    """The graph of an average with a model, built, and its artifacts."""
    for i, state in enumerate(checkpoints):
        torch.save(state, folder / f"step-{i}.pt")
    selection = select_checkpoints([str(folder / "step-*.pt")])
    contents = selection.check()
    one = evaluator(contents.tensors)
    sources = selection.sources(lambda done, total: None)
    inputs = CheckpointSet(selection, contents.of_model(one.last), one.layout, None, sources)
    average = AverageGraph(inputs, one, AverageOptions(**options))
    graph = Graph(folder / "out")
    graph.build(average.targets())
    return one, average, graph


def test_rows_are_predictions_of_the_averages(tmp_path):
    checkpoints = states(4)
    one, average, graph = average_of(tmp_path, checkpoints, rank=3, ema=0.5, each=True)
    table = graph.load(average.table)
    assert table.method == ["step 0", "step 1", "step 2", "last checkpoint", "SWA", "EMA", "SWAG"]
    surface, test = one.surface, one.setup.test
    last = net().eval()
    last.load_state_dict(checkpoints[-1])
    x, y = one.setup.data["test"]
    nll = nn.functional.cross_entropy(last(x), y).item()  # with the statistics of its file
    assert float(table.nll[3]) == pytest.approx(nll, rel=1e-5)
    iterates = ll.Trajectory.from_checkpoints(str(tmp_path / "step-*.pt"), one.layout)
    swag, ema = ll.SWAG(one.layout, rank=3), ll.EMA(one.layout, decay=0.5)
    iterates.into(swag, ema)
    for name, point in (("SWA", swag.point), ("EMA", ema.point)):
        row = next(row for row in table.rows() if row["method"] == name)
        assert row["nll"] == pytest.approx(ll.predict(surface, point, test).metrics()["nll"])
    scale = graph.load(average.tuning)["scale"]
    validation = {
        s: ll.predict(surface, swag.posterior(scale=s), one.setup.validation, samples=3).metrics()
        for s in (0.5, 1.0)
    }
    assert scale == min(validation, key=lambda s: validation[s]["nll"])
    assert float(table.scale[-1]) == scale


def test_statistics_are_inputs_where_there_are_any(monkeypatch):
    state = states(1)[0]
    one = evaluator(state)
    assert [each.name for each in one.statistics()] == ["model", "data/train"]
    assert one.inputs("test", frozen=True)[-1].name == "model"
    monkeypatch.setattr(type(one.surface), "has_batchnorm", False)
    assert [each.name for each in one.statistics()] == ["model"]
    assert one.statistics_settings() == {}


def test_the_model_is_known_by_all_that_it_holds():
    first, second = states(2)
    assert evaluator(first).model.fingerprint == evaluator(first).model.fingerprint
    assert evaluator(first).model.fingerprint != evaluator(second).model.fingerprint


def test_checkpoints_of_another_model():
    with pytest.raises(LayoutError, match="the model of the configuration"):
        evaluator(net(width=6).state_dict())
    state = states(1)[0]
    del state["1.running_mean"]
    with pytest.raises(LayoutError, match=r"the checkpoints: no 1\.running_mean"):
        evaluator(state)
