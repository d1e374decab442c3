"""Sharpness and widths of every kind of model: dict batches, tied weights, attention, BatchNorm."""

import math

import pytest
import torch

import lowland as ll
from lowland.curvature import AverageSharpness, SAMSharpness
from tests.models import every_case


@every_case
@pytest.mark.filterwarnings("ignore:.*performance drop.*:UserWarning")
def test_every_model_has_them(case):
    surface = case.surface()
    w = surface.point(case.model())
    average = ll.sharpness(surface, w, kind=AverageSharpness(directions=1), radius=1e-3)
    assert math.isfinite(float(average))
    assert average.loss == pytest.approx(float(surface(w)), rel=1e-5)
    sam = ll.sharpness(surface, w, kind=SAMSharpness(steps=1, restarts=1), radius=1e-2)
    # a step along the gradient; some weights are bfloat16
    assert float(sam) == pytest.approx(1e-2 * sam.gradient_norm, rel=0.3)
    assert sam.invariant in (None, False)
    rays = ll.widths(surface, w, directions=1, radius=0.1, points=2)
    assert rays.metrics["loss"].shape == (1, 2)
    assert torch.isfinite(rays.length).all()
