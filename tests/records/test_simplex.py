"""Records of simplexes: growth, triangles, functions."""

import pytest
import torch

from lowland.records import GrowthResult, TernaryResult
from tests.records.examples import EXAMPLES


def test_a_figure_of_a_triangle_is_an_attribute() -> None:
    triangle = EXAMPLES["TernaryResult"][0]
    assert triangle.loss[0] == 1
    assert triangle.evaluations == 3
    with pytest.raises(AttributeError, match="no metric 'acc'; there are loss"):
        _ = triangle.acc


@pytest.mark.parametrize("lengths", [(3.0, 5.0, 4.0), (1.0, 1.0, 1.0), (2.0, 3.0, 4.0)])
def test_corners_are_apart_as_the_vertices_are(lengths) -> None:
    triangle = TernaryResult(torch.eye(3), {}, lengths=torch.tensor(lengths))
    a, b, c = triangle.corners()
    distances = [float((x - y).norm()) for x, y in ((a, b), (b, c), (c, a))]
    assert distances == pytest.approx(lengths)


def test_what_growth_reached_and_its_table() -> None:
    growth = EXAMPLES["GrowthResult"][0]
    assert growth.final_count == 1
    assert list(growth.table().columns)[:2] == ["connectors", "log_volume"]
    assert list(growth.table().columns)[-1] == "test_error_mean"
    assert (
        GrowthResult(torch.tensor([2]), *[torch.rand(1)] * 4, accepted=torch.zeros(1)).final_count
        == 0
    )
