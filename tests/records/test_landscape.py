"""Barriers and means of losses along curves, against numpy; figures of a plane by name."""

import math

import numpy as np
import pytest
import torch

from lowland.records import BarrierResult, PathResult, SurfaceResult

T = torch.tensor([0.0, 0.1, 0.4, 1.0])
LOSS = torch.tensor([1.0, 3.0, 2.5, 2.0])


def path(t=T, loss=LOSS, **options):
    rest = torch.zeros(len(t))
    return PathResult(t, loss, rest, rest, rest, length=t.square(), **options)


def test_a_barrier_is_the_highest_loss_above_the_chord():
    above = LOSS - torch.tensor([1.0, 1.1, 1.4, 2.0])
    assert path().barrier == pytest.approx(float(above.max()))
    barrier = BarrierResult(T, LOSS, LOSS, distance=1.0, test_loss=LOSS + T)
    assert (barrier.height, float(barrier)) == pytest.approx((1.9, 1.9))
    assert barrier.t == pytest.approx(0.1)
    assert barrier.test_height == pytest.approx(1.9)  # a slope of its own changes no height
    valley = BarrierResult(T, -LOSS, LOSS, distance=1.0)
    assert valley.height == 0
    assert math.isnan(valley.test_height)
    assert math.isnan(path(loss=torch.tensor([1.0, math.nan, 1.0, 1.0])).barrier)


def test_points_beyond_the_ends_are_no_part_of_a_barrier():
    t = torch.cat([torch.tensor([-0.5]), T, torch.tensor([1.5])])
    loss = torch.cat([torch.tensor([90.0]), LOSS, torch.tensor([90.0])])
    assert path(t, loss, outside=True).barrier == pytest.approx(path().barrier)


def test_means_are_over_t_and_integrals_over_the_length():
    summary = path(metrics={"rmse": 2 * LOSS}).summary()
    t, loss = T.double().numpy(), LOSS.double().numpy()
    assert summary["loss"]["mean"] == pytest.approx(np.trapezoid(loss, t))
    assert summary["loss"]["integral"] == pytest.approx(np.trapezoid(loss, t**2))
    assert (summary["loss"]["min"], summary["loss"]["max"]) == (1, 3)
    assert summary["loss"]["at"] == pytest.approx(0.1)
    assert summary["rmse"]["mean"] == pytest.approx(2 * summary["loss"]["mean"])
    assert "test_loss" not in summary
    nothing = path(metrics={"rmse": torch.full((4,), math.nan)}).summary()
    assert "rmse" not in nothing


def test_metrics_of_a_plane_are_attributes():
    loss = torch.rand(2, 3)
    plane = SurfaceResult(torch.arange(3), torch.arange(2), {"loss": loss})
    assert plane.loss is loss
    with pytest.raises(AttributeError, match="no metric 'nll'; there are loss"):
        _ = plane.nll
    assert plane.evaluations == 6
    mask = torch.tensor([[True, False, True], [False] * 3])
    assert SurfaceResult(plane.x, plane.y, {"loss": loss}, evaluated_mask=mask).evaluations == 2
