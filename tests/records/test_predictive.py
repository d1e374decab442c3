"""A model average over a loader: its items, and what is known of its task."""

import pytest
import torch

from lowland.records import Predictive
from tests.records.examples import EXAMPLES


def test_metrics_are_a_copy() -> None:
    record = EXAMPLES["Predictive"][0]
    record.metrics().clear()
    assert record.metrics() == {"nll": 0.5, "accuracy": 1.0}


@pytest.mark.parametrize(
    ("shape", "target_dim", "items"),
    [
        ((6, 2), None, (6, 2)),
        ((6, 5, 2), None, (30, 2)),  # sequences: targets last
        ((6, 2, 5), 1, (30, 2)),
        ((6, 2, 4, 5), None, (120, 2)),  # images: targets on axis 1
        ((6, 4, 5, 2), -1, (120, 2)),
    ],
)
def test_items_are_rows_and_keep_their_targets_together(shape, target_dim, items) -> None:
    settings = {} if target_dim is None else {"target_dim": target_dim}
    record = Predictive("regression", 1, task={"name": "Regression", "settings": settings})
    values = torch.arange(torch.Size(shape).numel()).reshape(shape)
    rows = record.by_item(values)
    assert tuple(rows.shape) == items
    axis = shape.index(2)
    for d in range(2):
        assert rows[:, d].tolist() == values.select(axis, d).flatten().tolist()


def test_a_record_that_is_made_by_hand_has_the_task_of_its_kind() -> None:
    assert Predictive("language", 1).task == {"name": "LanguageModeling", "settings": {}}
    assert Predictive("classification", 1).form is None
    task = {"name": "Classification", "settings": {"form": "binary"}}
    assert Predictive("classification", 1, task=task).form == "binary"
    assert Predictive("survival", 1).task is None
