"""Two interleaved spirals in the plane."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lowland.errors import ConfigError

Split = tuple[Tensor, Tensor]


def spirals(
    *,
    points: int = 50,
    noise: float = 1.0,
    turns: float = 780 / 360,
    held_out: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    r"""Points (N, 2) and labels (N,) of two arms, the second the first turned by half a turn.

    At an angle \(\theta = 2\pi\,\mathrm{turns}\sqrt{u}\), u uniform, a point lies at
    \(\theta\,(-\cos\theta, \sin\theta)\), plus `noise` times a uniform number in each coordinate.

    Args:
        points: of each class, in the training split. held_out: of each class, in the validation
            and in the test split. seed: of all three.

    >>> x, y = spirals()["train"]
    >>> x.shape, y.bincount().tolist()
    (torch.Size([100, 2]), [50, 50])
    """
    if min(points, held_out) < 1:
        raise ConfigError(
            f"expected at least 1 point of each class, got points={points}, held_out={held_out}."
        )
    generator = torch.Generator().manual_seed(seed)
    sizes = {"train": points, "validation": held_out, "test": held_out}
    return {name: _arms(n, noise, turns, generator) for name, n in sizes.items()}


def _arms(n: int, noise: float, turns: float, generator: torch.Generator) -> Split:
    angle = 2 * math.pi * turns * torch.rand(n, generator=generator).sqrt()
    arm = torch.stack([-angle * angle.cos(), angle * angle.sin()], dim=1)
    arm = arm + noise * torch.rand(n, 2, generator=generator)
    return torch.cat([arm, -arm]), torch.arange(2).repeat_interleave(n)
