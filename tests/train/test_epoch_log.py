"""The log of epochs: means over items, late metrics, and losses that are not finite."""

import math

import pytest
import torch

from lowland.errors import NonFiniteError
from lowland.train.epoch_log import EpochLog


def add(log: EpochLog, *losses: float, items: int = 1) -> None:
    for batch, loss in enumerate(losses):
        log.add(torch.tensor(loss, dtype=torch.float64), items, step=batch, epoch=0, batch=batch)


def test_the_loss_is_the_mean_over_the_items_of_an_epoch() -> None:
    log = EpochLog()
    add(log, 1.0, items=3)
    add(log, 5.0, items=1)
    add(log, 100.0, items=0)  # checked alone
    log.sums["seconds"] += 0.5
    log.close(4, 0.1, {})
    add(log, 7.0)
    log.close(5, 0.2, {})
    record = log.record()
    assert {name: column.tolist() for name, column in record.columns.items()} == {
        "epoch": [5.0, 6.0],
        "loss": [2.0, 7.0],
        "lr": [0.1, 0.2],
        "seconds": [0.5, 0.0],
    }


def test_a_metric_may_come_late_and_go() -> None:
    log = EpochLog()
    for epoch, metrics in enumerate(({}, {"error": 0.5}, {})):
        log.close(epoch, 0.1, metrics)
    before, value, after = log.columns["error"]
    assert value == 0.5
    assert math.isnan(before)
    assert math.isnan(after)


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_names_its_place(loss: float) -> None:
    with pytest.raises(NonFiniteError, match=rf"the loss is {loss} at step 2 \(epoch 1, batch 2\)"):
        add(EpochLog(), 1.0, loss)
