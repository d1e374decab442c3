"""The problem of the study: data, network, the published curve's subspace, and the log density."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import lowland as ll
from lowland.zoo import Regression1dNet, regression1d

DATA = Path("../shared/data")
NOISE = 0.05  # variance of the targets around the function
GRID = torch.linspace(-12, 12, 481)[:, None]


def examples(root: Path) -> tuple[Tensor, Tensor]:
    """Inputs and targets, (400, 1) each."""
    x, y = regression1d(root / "regression1d.npy")["train"]
    return x, y


def surface(root: Path) -> ll.LossSurface:
    """The negative log-likelihood of all examples, as one batch."""
    return ll.LossSurface(Regression1dNet(), ll.Regression(noise_variance=NOISE), [examples(root)])


def published_plane(root: Path) -> ll.Subspace:
    """The plane of the published curve; its center is the mean of the curve's three anchors.

    The first direction is the difference of the ends, divided by sqrt(3). The second is the part of
    the middle anchor that is orthogonal to the first, divided by 1.5.
    """
    w = torch.from_numpy(np.load(root / "regression1d_curve.npy"))
    along = (w[2] - w[0]) / math.sqrt(3)
    off = (w[1] - w[0]).double()
    unit = along.double() / along.double().norm()
    across = (off - (off @ unit) * unit) / 1.5
    return ll.Subspace(w.mean(0), torch.stack([along, across.float()]))
