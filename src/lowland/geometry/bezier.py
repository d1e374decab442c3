"""Smooth curves whose bends pull at them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowland.geometry.curve import Curve


class Bezier(Curve):
    r"""\(w(t) = \sum_j \binom{n}{j} (1 - t)^{n-j} t^j A_j\), of degree n = bends + 1.

    With one control point \(w(t) = (1-t)^2 w_0 + 2 t (1-t)\, \theta + t^2 w_1\) (Garipov et al.
    2018, equation 3). The ends are fixed, the control points free: see `between`.

    >>> curve = Bezier.between(torch.zeros(1), torch.ones(1))
    >>> curve.coefficients(torch.tensor([[0.0], [0.5], [1.0]]))
    tensor([[1.0000, 0.0000, 0.0000],
            [0.2500, 0.5000, 0.2500],
            [0.0000, 0.0000, 1.0000]])
    """

    @property
    def breaks(self) -> tuple[float, ...]:
        return (0.0, 1.0)

    def coefficients(self, coords: Tensor) -> Tensor:  # (n, 1) -> (n, A)
        degree = len(self.anchors) - 1
        columns = [
            math.comb(degree, j) * (1 - coords) ** (degree - j) * coords**j
            for j in range(degree + 1)
        ]
        return torch.cat(columns, dim=1)
