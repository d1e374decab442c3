"""Test metrics of averages, against predicting with each of them."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.cli.average_metrics import AverageEvaluator, _repeated
from lowland.cli.bars import Bars
from lowland.cli.console import Terminal
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


def test_rows_are_predictions_of_the_averages(tmp_path):
    checkpoints = states(4)
    files = []
    for i, state in enumerate(checkpoints):
        torch.save(state, tmp_path / f"step-{i}.pt")
        files.append(tmp_path / f"step-{i}.pt")
    one = evaluator(checkpoints[-1])
    iterates = ll.Trajectory.from_checkpoints(files, one.layout)
    swag, ema = ll.SWAG(one.layout, rank=3), ll.EMA(one.layout, decay=0.5)
    iterates.into(swag, ema)
    with Bars(Terminal(quiet=True)) as bars:
        table = one.table(iterates, swag, ema, each=True, bars=bars)
    assert table.method == ["step 0", "step 1", "step 2", "last checkpoint", "SWA", "EMA", "SWAG"]
    surface, test = one.surface, one.setup.test
    last = net().eval()
    last.load_state_dict(checkpoints[-1])
    x, y = one.setup.data["test"]
    nll = nn.functional.cross_entropy(last(x), y).item()  # with the statistics of its file
    assert float(table.nll[3]) == pytest.approx(nll, rel=1e-5)
    for name, point in (("SWA", swag.point), ("EMA", ema.point)):
        row = next(row for row in table.rows() if row["method"] == name)
        assert row["nll"] == pytest.approx(ll.predict(surface, point, test).metrics()["nll"])
    scale = one.tuned["scale"]
    validation = {
        s: ll.predict(surface, swag.posterior(scale=s), one.setup.validation, samples=3).metrics()
        for s in (0.5, 1.0)
    }
    assert scale == min(validation, key=lambda s: validation[s]["nll"])
    assert float(table.scale[-1]) == scale


def test_checkpoints_of_another_model():
    with pytest.raises(LayoutError, match="the model of the configuration"):
        evaluator(net(width=6).state_dict())
    state = states(1)[0]
    del state["1.running_mean"]
    with pytest.raises(LayoutError, match=r"the checkpoints: no 1\.running_mean"):
        evaluator(state)


def test_repeated_work_counts_on():
    counts = []
    report = _repeated(lambda done, total: counts.append((done, total)), 3)
    for done in (1, 2, 1, 2, 1, 2):
        report(done, 2)
    assert counts == [(n, 6) for n in range(1, 7)]
