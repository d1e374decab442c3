"""Metrics of a method: the CRPS of a regression."""

import pytest
import torch

import lowland as ll
from lowland.artifacts import Source
from lowland.cli.comparison_tables import ComparisonTable
from lowland.cli.method_metrics import MethodMetrics, MethodRow
from lowland.cli.predictions import MethodPredictions
from lowland.core import Regression
from tests.cli.method_rows import built


@pytest.mark.parametrize("mixture", [True, False])
def test_the_crps_of_a_regression_is_of_its_mixture_where_there_is_one(tmp_path, mixture):
    task = Regression(noise_variance=1.0)
    x, y = torch.ones(12, 1), torch.linspace(-1, 1, 12)[:, None]
    surface = ll.LossSurface(torch.nn.Linear(1, 1, bias=False), task, [(x, y)])
    points = ll.Ensemble(torch.tensor([[-2.0], [2.0]]))
    pred = ll.predict(surface, points)
    components = torch.tensor([-2.0, 2.0])[:, None, None].expand(2, 12, 1), torch.ones(2, 12, 1)
    predictions = MethodPredictions(
        "swag",
        "SWAG",
        {"test": Source("test", pred, {"seed": 0})},
        Source("components", components if mixture else None, {"mixture": mixture}),
    )
    metrics = MethodMetrics("seed-0", predictions, [], task)
    table = built(tmp_path, ComparisonTable([MethodRow((metrics,))]))
    assert table.crps_of == ["mixture" if mixture else "Gaussian"]
    exact = float(ll.crps(y.double(), *(each.double() for each in components)).mean())
    assert (float(table.crps[0]) == pytest.approx(exact)) == mixture
    assert "nll_se" not in table.columns
