"""What curves share: coordinates in [0, 1], lengths, and nearest points."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from lowland import checks
from lowland.core.buffers import restack_buffers
from lowland.core.inner import inner
from lowland.core.point import Point
from lowland.errors import ConfigError
from lowland.geometry.base import Shape, stratified
from lowland.geometry.stacking import stack_weight_buffers, stack_weights

_NODES, _PANELS = 16, 16  # of Gauss and Legendre, and parts, a smooth piece: where a curve turns
# sharply its speed is nearly a kink
_GRID = 256  # points a piece, among which the nearest is looked for before it is refined


class Curve(Shape):
    r"""A curve from its first anchor, t = 0, to its last, t = 1.

    Lengths and nearest points need the anchors' inner products alone, for
    \(|w'(t)|^2 = c'(t)^T G\, c'(t)\): once they are known, nothing depends on P.
    """

    k = 1

    @classmethod
    def between(cls, w0: Tensor | Point, w1: Tensor | Point, *, bends: int = 1) -> Self:
        """A curve whose ends are fixed and whose `bends` free anchors lie evenly on the chord.

        Raises:
            ConfigError: fewer than one bend, or ends that are equal. LayoutError: weights of
                different models.
        """
        bends = checks.whole(
            "bends", bends, least=1, most=10_000, hint="a line without bends is ll.Line(w0, w1)"
        )
        ends = stack_weights([w0, w1], what="the ends")
        require_apart(ends)
        share = torch.linspace(0, 1, bends + 2, dtype=torch.float64, device=ends.device)[1:-1, None]
        inside = torch.lerp(ends[:1], ends[1:], share.to(ends.dtype))
        shape = cls.__new__(cls)
        free = [False, *[True] * bends, False]
        Shape.__init__(shape, torch.cat([ends[:1], inside, ends[1:]]), free=free)
        buffers = stack_weight_buffers([w0, w1])
        if buffers is not None:
            at = torch.linspace(0, 1, bends + 2, dtype=torch.float64)
            shape.buffers = restack_buffers(torch.stack([1 - at, at], dim=1), buffers)
        return shape

    @property
    @abstractmethod
    def breaks(self) -> tuple[float, ...]:
        """Where pieces begin and end that are smooth in t: (0, ..., 1)."""

    def sample_coords(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """t uniform in [0, 1], stratified: (n, 1)."""
        return stratified(n, generator=generator)[:, None].to(self.device)

    # -- lengths ---------------------------------------------------------------------------------

    def speed(self, t: Any, gram: Tensor | None = None) -> Tensor:
        """|w'(t)| at t (n,) or (n, 1): (n,) float64, differentiable in the Gram matrix."""
        slopes = self.slopes(t)[:, 0]  # (n, A)
        gram = self.gram() if gram is None else gram
        return torch.einsum("na,ab,nb->n", slopes, gram, slopes).clamp_min(0).sqrt()

    def arc(self, gram: Tensor | None = None) -> Tensor:
        """The length as a float64 scalar, differentiable in the Gram matrix (A, A)."""
        t, weights = self._quadrature()
        return (self.speed(t, gram) * weights).sum()

    def length(self) -> float:
        r"""\(\int_0^1 |w'(t)|\, dt\), by Gauss and Legendre piece by piece."""
        return float(self.arc())

    def length_to(self, t: Any) -> Tensor:
        r"""\(\int_0^t |w'(u)|\, du\) for t (n,) or (n, 1): (n,) float64, negative before 0.

        By Gauss and Legendre between the points, piece by piece: exact for straight pieces.

        >>> from lowland.geometry import Line
        >>> Line(torch.zeros(2), torch.tensor([3.0, 4.0])).length_to([0.0, 0.5, 1.0])
        tensor([0.0000, 2.5000, 5.0000], dtype=torch.float64)
        """
        t = self._rows(t)[:, 0].cpu()
        breaks = torch.tensor(self.breaks, dtype=torch.float64)
        panels = [torch.linspace(a, b, _PANELS + 1).double() for a, b in self._pieces()]
        knots = torch.cat([breaks, *panels, t]).unique()
        nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(_NODES))
        width = (knots[1:] - knots[:-1])[:, None]
        at = knots[:-1, None] + width * (nodes + 1) / 2  # (pieces, nodes)
        speed = self.speed(at.reshape(-1, 1)).cpu().reshape(at.shape)
        done = torch.cat([torch.zeros(1), (speed * weights * width / 2).sum(1).cumsum(0)])
        return done[torch.searchsorted(knots, t)] - done[torch.searchsorted(knots, breaks[:1])]

    def at_arc(self, share: Any) -> Tensor:
        """t (n, 1) where these shares in [0, 1] of the length are behind: even steps along w."""
        share = torch.as_tensor(share, dtype=torch.float64).reshape(-1).cpu()
        gram = self.gram()
        t = torch.cat(
            [torch.linspace(a, b, _GRID + 1, dtype=torch.float64) for a, b in self._pieces()]
        )
        middle = (t[1:] + t[:-1]) / 2
        steps = self.speed(middle, gram).cpu() * (t[1:] - t[:-1])
        done = torch.cat([torch.zeros(1).double(), steps.cumsum(0)])
        at_shares = np.interp((share * done[-1]).numpy(), done.numpy(), t.numpy())
        return torch.from_numpy(np.atleast_1d(at_shares))[:, None].to(self.device)

    def _pieces(self) -> list[tuple[float, float]]:
        return list(itertools.pairwise(self.breaks))

    def _quadrature(self) -> tuple[Tensor, Tensor]:
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        edges = np.concatenate(
            [np.linspace(a, b, _PANELS, endpoint=False) for a, b in self._pieces()] + [[1.0]]
        )
        parts = [
            (a + (b - a) * (nodes + 1) / 2, weights * (b - a) / 2)
            for a, b in itertools.pairwise(edges)
        ]
        t, w = (
            torch.from_numpy(np.concatenate(p)).to(self.device) for p in zip(*parts, strict=True)
        )
        return t, w

    # -- nearest points --------------------------------------------------------------------------

    def _nearest(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest t in [0, 1]: the best of a fine grid, refined by golden section."""
        # relative to w, so that weights on the curve come out at a distance of nearly zero
        apart = self.anchors - w
        gram = inner(apart, apart)

        def square(t: Tensor) -> Tensor:  # (n,)
            c = self.coefficients(t[:, None])
            return torch.einsum("na,ab,nb->n", c, gram, c)

        grid = torch.linspace(0, 1, _GRID * len(self._pieces()) + 1, dtype=torch.float64)
        grid = grid.to(self.device)
        best = int(square(grid).argmin())
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        for _ in range(12):  # each pass narrows the bracket fourfold; one may hold a knot
            inside = low + (high - low) * torch.linspace(0, 1, 9, dtype=torch.float64).to(grid)
            best = int(square(inside).argmin())
            low, high = inside[max(best - 1, 0)], inside[min(best + 1, 8)]
        t = inside[best]
        # the ends themselves, where they are as near: the grid has them exactly
        return t[None], square(t[None])[0].clamp_min(0).sqrt()


def require_apart(ends: Tensor) -> None:
    """Raises `ConfigError` where two ends are one point."""
    if torch.equal(ends[0], ends[-1]):
        raise ConfigError(
            "the two ends are the same weights; take two minima, such as runs of different seeds."
        )
