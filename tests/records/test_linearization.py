"""Means, slopes and shapes of the record, by hand."""

import math

import pytest
import torch

from lowland.errors import DataError
from lowland.records import LinearizationResult
from lowland.records.linearization import TERMS


def record(**changes):
    fields = {
        "distance": torch.tensor([1.0, 3.0]),
        "terms": {k: torch.tensor([[i, i + 1.0], [1.0, 2.0]]) for i, k in enumerate(TERMS)},
        "mean_terms": {k: torch.tensor([float(i), 2.0]) for i, k in enumerate(TERMS)},
        "scales": torch.tensor([1.0, 0.5, 0.25]),
        "ensemble": torch.tensor([[1.0, 3.0], [0.25, 0.75], [0.125, 0.125]]),
        "consecutive": torch.tensor([[4.0, 4.0], [2.0, 2.0], [1.0, 1.0]]),
    }
    return LinearizationResult(**(fields | changes))


def test_the_table_has_means_over_examples_a_row_a_member():
    table = record(names=["FGE 1", "FGE 2"]).table
    assert table.member == ["FGE 1", "FGE 2", "mean output"]
    assert table.second_order.tolist() == [2.5, 1.5, 2.0]
    assert table.distance[:2].tolist() == [1.0, 3.0]
    assert math.isnan(table.distance[2])
    assert record().table.member[:2] == ["0", "1"]


def test_slopes_are_least_squares_in_logarithms():
    one = record()
    assert one.scale_table.distance.tolist() == [2.0, 1.0, 0.5]
    assert one.scale_table.ensemble.tolist() == [2.0, 0.5, 0.125]
    assert one.slopes == pytest.approx({"ensemble": 2.0, "consecutive": 1.0})
    assert one.message.endswith(
        "from the average's by 2; those of consecutive members differ by 4."
    )
    assert str(one).endswith(f"{one.message} Slopes: ensemble 2.00, consecutive 1.00.")
    alone = record(scales=torch.ones(1), ensemble=torch.ones(1, 2), consecutive=torch.ones(1, 2))
    assert math.isnan(alone.slopes["ensemble"])
    assert str(alone) == f"{alone.table}\n\n{alone.message}"
    assert math.isnan(record(ensemble=torch.zeros(3, 2)).slopes["ensemble"])


def test_fields_that_do_not_go_together_raise():
    with pytest.raises(DataError, match="got no remainder"):
        record(terms={k: torch.ones(2, 2) for k in TERMS[:3]})
    with pytest.raises(DataError, match="difference: expected 2 rows, got 3"):
        record(terms={k: torch.ones(3, 2) for k in TERMS})
    with pytest.raises(DataError, match="each of 3 scales, got 1 and 3"):
        record(ensemble=torch.ones(1, 2))
