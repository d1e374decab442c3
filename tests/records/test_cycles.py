"""Series over cycles."""

import pytest
import torch

from lowland.errors import DataError
from lowland.records import CycleSeries


def test_series_of_different_lengths_are_refused():
    step, none = torch.arange(3), torch.tensor([])
    with pytest.raises(DataError, match="'error': 2"):
        CycleSeries(step, step / 3, {"error": torch.zeros(2)}, none, none, none, none)
    with pytest.raises(DataError, match="'lr': 3"):
        CycleSeries(step, step / 3, {}, none, step / 3, none, none)
