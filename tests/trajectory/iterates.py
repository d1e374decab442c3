"""Iterates of a correlated walk, and their moments by numpy in float64."""

import numpy as np
import torch
from torch import nn

from lowland import ParamLayout


def flat_layout(size, dtype=torch.float32):
    return ParamLayout(nn.Linear(size, 1, bias=False, dtype=dtype))


def random_walk(n, size, *, centre=0.0, sd=1.0, dtype=torch.float32, seed=0):
    """n iterates of a correlated walk, (n, P)."""
    g = torch.Generator().manual_seed(seed)
    steps = torch.randn(n, size, generator=g, dtype=torch.float64)
    smooth = torch.stack([steps[max(0, i - 2) : i + 1].mean(0) for i in range(n)])
    return (centre + sd * smooth).to(dtype)


def offline(iterates, rank):
    """Mean, variance over n and the last deviations with running means, in float64."""
    w = iterates.double().numpy()
    means = np.cumsum(w, 0) / np.arange(1, len(w) + 1)[:, None]
    return w.mean(0), w.var(0), (w - means)[max(0, len(w) - rank) :]


def collected(kind, iterates, **settings):
    moments = kind(flat_layout(iterates.shape[1], iterates.dtype), **settings)
    for w in iterates:
        moments.update(w)
    return moments
