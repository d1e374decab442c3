"""Surfaces whose loss is a quadratic, with its numbers in NumPy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lowland.core import LossSurface, Regression

LOG = 0.5 * np.log(2 * np.pi)


def surface(x: Tensor, y: Tensor, **options) -> LossSurface:
    """L(w) = mean (y - x w)² / 2 + log(2 pi) / 2, in float64."""
    net = nn.Linear(x.shape[1], 1, bias=False).double()
    return LossSurface(net, Regression(noise_variance=1.0), batches(x, y), **options)


def batches(x: Tensor, y: Tensor, size: int = 7) -> list[tuple[Tensor, Tensor]]:
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def problem(n: int, p: int, *, noise: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (n, p), targets (n, 1) and the true weights (p,)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, p, generator=generator, dtype=torch.float64)
    w = torch.randn(p, generator=generator, dtype=torch.float64)
    targets = x @ w + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    return x, targets[:, None], w


def nlls(x: Tensor, y: Tensor, w: Tensor) -> np.ndarray:
    """The NLL of each example, (n,)."""
    residual = y[:, 0] - x @ w.double()
    return (residual**2 / 2).numpy() + LOG
