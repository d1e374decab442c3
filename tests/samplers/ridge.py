"""The ridge problem: a posterior on the plane of a trained curve whose mass is hundredths wide.

The plane and the data are those of the 1-D regression of Izmailov et al. (2019, figure 1).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lowland as ll
from lowland.samplers import Density

DATA = Path(__file__).parents[3] / "shared" / "data"
CURVE, POINTS = DATA / "regression1d_curve.npy", DATA / "regression1d.npy"
CHUNK = 64  # points that vmap goes through at once


def network() -> nn.Sequential:
    sizes = (2, 200, 50, 50, 50, 1)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def subspace() -> ll.Subspace:
    """Centre: the mean of the curve's anchors; u along the chord, v towards the bend."""
    w = torch.from_numpy(np.load(CURVE)).double()
    centre = w.mean(0)
    u = (w[2] - w[0]) / 3**0.5
    v = w[1] - w[0]
    v = (v - (v @ u) / (u @ u) * u) / 1.5
    return ll.Subspace(centre.float(), torch.stack([u, v]).float())


def surface() -> ll.LossSurface:
    x, y = torch.from_numpy(np.load(POINTS)).float().T
    features = torch.stack([x / 2, (x / 2) ** 2], 1)
    loader = DataLoader(TensorDataset(features, y[:, None]), batch_size=len(x))
    return ll.LossSurface(network(), ll.Regression(noise_variance=0.05), loader)


def density(*, temperature: float = 0.75, prior_scale: float = 1.0) -> Density:
    plane, function = subspace(), surface()
    (batch,) = list(function.data)
    rows = function.data.items or len(np.load(POINTS))
    losses = torch.func.vmap(lambda w: function.loss(w, batch))

    def log_likelihood(z: Tensor) -> Tensor:
        parts = [losses(plane(part.float())) for part in z.split(CHUNK)]
        return -rows * torch.cat(parts).double()

    return Density(log_likelihood, 2, prior_scale=prior_scale, temperature=temperature)
