"""Series over cycles against the trajectory that they are made of."""

import pytest
import torch
from torch import nn

import lowland as ll
from tests.models import blobs, mlp


def trained(folder, make_schedule, *, steps=24, every=2):
    torch.manual_seed(0)
    model, data = mlp(), blobs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = make_schedule(optimizer)
    store = ll.Trajectory.create(folder, ll.ParamLayout(model))
    store.append(model, step=0)
    collector = ll.Collector(store, when=ll.Every(every))
    lrs = {}
    for step in range(1, steps + 1):
        x, y = data[step % len(data)]
        lrs[step] = optimizer.param_groups[0]["lr"]
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        collector.step(model)
    surface = ll.LossSurface(model, ll.Classification(), data)
    return surface, store, schedule, lrs


MAKE = {
    "cosine": (
        lambda o: ll.CyclicalCosineSchedule(o, cycle=7.5),
        ll.EndOfCycle(7.5),
        [8, 15, 22],
        [8, 15, 22],
    ),
    "triangle": (
        lambda o: ll.CyclicalSchedule(o, cycle=8),
        ll.MidCycle(8),
        [5, 13, 21],
        [8, 16, 24],
    ),
}


@pytest.mark.parametrize("name", MAKE)
def test_series_equal_those_of_the_run(tmp_path, name):
    make, rule, members, ends = MAKE[name]
    surface, store, schedule, lrs = trained(tmp_path / "run", make)
    series = ll.cycle_series(surface, store, schedule=schedule, members=rule, split="training")
    assert series.step.tolist() == store.steps == list(range(0, 25, 2))
    assert series.lr_step.tolist() == list(lrs)
    assert series.lr.tolist() == pytest.approx(list(lrs.values()))
    assert series.members.tolist() == members
    assert series.ends.tolist() == ends
    assert series.distance[0] == 0
    distance = (store[-1].weights - store[0].weights).norm()
    assert float(series.distance[-1]) == pytest.approx(float(distance))
    table = surface.evaluate(store)
    assert torch.equal(series.metrics["error"], table.error)
    assert torch.equal(series.metrics["nll"], table.nll)
    series.save(tmp_path / "series.json")
    again = type(series).load(tmp_path / "series.json")
    assert again.members.tolist() == members


def test_an_empty_trajectory_is_refused(tmp_path):
    surface, _, schedule, _ = trained(tmp_path / "run", MAKE["cosine"][0])
    empty = ll.Trajectory.create(tmp_path / "empty", surface.layout)
    with pytest.raises(ll.DataError, match="no iterates; store several of each cycle"):
        ll.cycle_series(surface, empty, schedule=schedule, members=ll.EndOfCycle(7.5))
