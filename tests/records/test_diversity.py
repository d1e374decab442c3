"""The means over pairs, and the gap, by hand."""

import math

import pytest
import torch

from lowland.records import DiversityResult

MATRIX = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 4.0], [5.0, 6.0, 0.0]]).double()


def test_means_are_over_pairs_of_different_members() -> None:
    nll = torch.tensor([0.5, 0.7, 0.9]).double()
    record = DiversityResult(
        ["a", "b", "c"], MATRIX, None, MATRIX, member_nll=nll, ensemble_nll=0.6
    )
    assert list(record.matrices) == ["cosine_mean", "distance"]
    assert record.mean("distance") == 3.5
    assert record.table.distance.tolist() == [1.5, 3.5, 5.5]
    assert record.gap == pytest.approx(0.1)
    assert str(record).endswith("0.6000, 0.1000 below the mean of its members.")


def test_without_targets_there_is_no_gap() -> None:
    record = DiversityResult(["a", "b", "c"], MATRIX, None, MATRIX)
    assert math.isnan(record.gap)
    assert "nll" not in record.table.columns
