"""Scores over temperatures and priors, and the best of them."""

import math

import pytest
import torch

from lowland.errors import DataError
from lowland.records import TemperingResult
from tests.records.examples import EXAMPLES


def test_the_best_of_temperatures_and_priors() -> None:
    record = EXAMPLES["TemperingResult"][0]
    assert (record.temperature, record.prior_scale) == (100.0, math.inf)
    frame = record.to_pandas()
    assert list(frame.columns) == ["temperature", "prior_scale", "nll", "nll_se", "error"]
    assert frame.error.tolist() == [0.25, 0.5]
    assert list(EXAMPLES["TemperingResult"][1].to_pandas().columns)[-1] == "nll"
    one, two = torch.ones(1), torch.ones(2)
    for columns, options, said in [
        (
            (two, two, two),
            {"second_metric": one},
            "rmse: expected 2 values, one for each nll, got 1",
        ),
        ((one, two, two), {}, "temperature: expected 2 values"),
        ((two, two, two), {"best": 2}, "best: expected a row, 0 to 1, got 2"),
        ((two, two, two), {"second_metric_name": "ece"}, "expected 'rmse' or 'error', got 'ece'"),
    ]:
        with pytest.raises(DataError, match=said):
            TemperingResult(*columns, **options)
