"""Straight pieces through free knots."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.geometry.curve import Curve


class PolyChain(Curve):
    r"""A polygonal chain through n + 2 anchors, knot j at t = j / (n + 1).

    \(w(t) = (1 - s)\, A_j + s\, A_{j+1}\) with \(j = \lfloor t (n+1) \rfloor\), \(s = t (n+1) - j\)
    (Garipov et al. 2018, equation 2). The ends are fixed, the n control points free: see `between`.

    >>> chain = PolyChain.between(torch.zeros(1), torch.tensor([4.0]), bends=3)
    >>> chain([0.0, 0.125, 0.25])
    tensor([[0.0000],
            [0.5000],
            [1.0000]])
    """

    @property
    def breaks(self) -> tuple[float, ...]:
        pieces = len(self.anchors) - 1
        return tuple(j / pieces for j in range(pieces + 1))

    def coefficients(self, coords: Tensor) -> Tensor:  # (n, 1) -> (n, A)
        pieces = len(self.anchors) - 1
        along = coords * pieces
        piece = along.detach().floor().clamp(0, pieces - 1)  # (n, 1); outside, the last ones go on
        share = along - piece
        knot = torch.arange(pieces + 1, device=coords.device)
        return torch.where(knot == piece, 1 - share, 0) + torch.where(knot == piece + 1, share, 0)
