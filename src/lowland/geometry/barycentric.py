"""What simplexes and complexes of them share: barycentric coordinates, volumes, growing."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import torch
from torch import Tensor

from lowland import checks
from lowland.core.buffers import restack_buffers
from lowland.core.inner import inner
from lowland.core.point import Point
from lowland.core.seeds import stream
from lowland.errors import ConfigError
from lowland.geometry.affine import rounding
from lowland.geometry.base import Shape, linear_combination
from lowland.geometry.nearest import nearest
from lowland.geometry.volume import edges_of, log_volume, mean_edge, require_volume

Drawn = Literal["volume", "equal"]  # how simplexes are drawn
_SUM = 1e-4  # how far coordinates, often float32, may be from a sum of one


class Barycentric(Shape):
    r"""\(w(c) = \sum_a c_a v_a\) with \(c_a \ge 0\), \(\sum_a c_a = 1\), a simplex or several.

    The coordinates (k = A of them) are the vertices' own coefficients; those of a point of a
    complex are zero but for the vertices of one of its simplexes.

    Attributes:
        cells: for each simplex the numbers of its vertices. weights: how simplexes are drawn,
            "volume" or "equal".
    """

    cells: tuple[tuple[int, ...], ...]
    weights: Drawn

    def _fill(self, anchors: Tensor, free: Any, cells: Any, weights: Drawn = "volume") -> None:
        Shape.__init__(self, anchors, free=free)
        self.k = len(anchors)
        self.cells = tuple(tuple(cell) for cell in cells)
        self.weights = weights
        seen = self.seen()
        noise = rounding(anchors)
        for cell in self.cells:
            require_volume(seen[cell, :][:, cell], size=self.size, noise=noise)

    def coefficients(self, coords: Tensor) -> Tensor:  # (n, A) -> (n, A)
        return coords

    def sample_coords(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Uniform over the shape: (n, A). Simplexes are stratified: among n draws each occurs in
        proportion to its volume, up to one; within it, Dirichlet(1)."""
        u = _evenly(n, generator)
        edges = self.shares().cpu().cumsum(0)[:-1].contiguous()
        which = torch.searchsorted(edges, u, right=True)
        n = checks.whole("n", n, least=1)
        raw = torch.empty(n, self.k, dtype=torch.float64).exponential_(generator=generator)
        raw = raw * self.members()[which]
        return (raw / raw.sum(1, keepdim=True)).to(self.device)

    def members(self) -> Tensor:
        """Which vertices each simplex has, (cells, A) bool."""
        membership = torch.zeros(len(self.cells), self.k, dtype=torch.bool)
        for row, cell in zip(membership, self.cells, strict=True):
            row[list(cell)] = True
        return membership

    # -- volume ----------------------------------------------------------------------------------

    def seen(self) -> Tensor:
        """Inner products of the vertices as seen from the first, (A, A) float64."""
        return inner(self.anchors, self.anchors, origin=self.anchors[0])

    def log_volumes(self, gram: Tensor | None = None) -> Tensor:
        """Of each simplex, (cells,) float64, differentiable in the vertices' inner products."""
        gram = self.seen() if gram is None else gram
        return torch.stack([log_volume(gram[cell, :][:, cell]) for cell in self.cells])

    def log_volume(self, gram: Tensor | None = None) -> Tensor:
        r"""\(\log \sum_s V_s\), a float64 scalar, with
        \(\log V_s = \tfrac12 \log\det(E_s E_s^T) - \log k_s!\) by the edges' Gram matrix.

        Overlaps of simplexes are counted as often as they occur. -inf where all are flat, 0 for a
        single point.

        Raises:
            ConfigError: simplexes of different dimensions, whose volumes do not add up.
        """
        counts = sorted({len(cell) for cell in self.cells})
        if len(counts) > 1:
            raise ConfigError(
                f"simplexes of {' and '.join(map(str, counts))} vertices have volumes of different "
                "dimensions, which do not add up; take log_volumes()."
            )
        return torch.logsumexp(self.log_volumes(gram), 0)

    def shares(self, gram: Tensor | None = None) -> Tensor:
        """The probability of each simplex, (cells,) float64, differentiable like the volumes."""
        n = len(self.cells)
        if self.weights == "equal" or n == 1:
            return torch.full((n,), 1 / n, dtype=torch.float64, device=self.device)
        return torch.softmax(self.log_volumes(gram), 0)

    # -- nearest points --------------------------------------------------------------------------

    def _nearest(self, w: Tensor) -> tuple[Tensor, Tensor]:
        # relative to w, so that weights on the shape come out at a distance of nearly zero
        gram = inner(self.anchors, self.anchors, origin=w)
        best, least = torch.zeros_like(gram[0]), gram.new_tensor(math.inf)
        for cell in self.cells:
            inside = gram[cell, :][:, cell]
            c = nearest(inside)
            square = c @ inside @ c
            if square < least:
                best = torch.zeros_like(best)
                best[list(cell)], least = c, square
        return best, least.clamp_min(0).sqrt()

    def project(self, w: Tensor | Point) -> Tensor:
        """The point of the shape that is nearest to w: (P,), or (n, P) for (n, P)."""
        return self(self.coords_of(w)[0])

    def contains(self, w: Tensor | Point, *, tolerance: float = 1e-6) -> Tensor:
        """Whether w lies on the shape, up to rounding and `tolerance` mean edges: bool, or (n,)."""
        _, far = self.coords_of(w)
        tolerance = checks.number("tolerance", tolerance, least=0)
        near = tolerance * mean_edge(self.seen()) + rounding(self.anchors)
        return far <= near

    # -- growing ---------------------------------------------------------------------------------

    def grow(self, *, jitter: float = 1e-2, seed: int = 0) -> Self:
        r"""A copy with one more vertex, which alone is free, joined to every simplex.

        It lies at the vertices' centroid, displaced by `jitter` mean edges (for a single vertex:
        by `jitter` \(|v_0|\)) in a random direction orthogonal to all edges. At the centroid itself
        the volume would be zero and its logarithm without a gradient.

        Raises:
            ConfigError: a jitter that is not positive; as many vertices as dimensions.
        """
        jitter = checks.number(
            "jitter", jitter, above=0, hint="without it the new vertex adds no volume"
        )
        seed = checks.seed(seed)
        n = len(self.anchors)
        if n > self.size:
            raise ConfigError(
                f"{n} vertices fill the {self.size} dimensions that there are; no other is free."
            )
        gram = self.seen()
        reach = mean_edge(gram) if n > 1 else float(inner(self.anchors[0], self.anchors[0]).sqrt())
        if reach == 0:
            raise ConfigError(
                "the only vertex is zero, so that jitter has no scale; give two vertices by hand."
            )
        away = self._across(gram, seed) * (jitter * reach)
        new = (self.anchors.double().mean(0) if n > 1 else self.anchors[0].double()) + away
        copy = type(self).__new__(type(self))
        copy._fill(
            torch.cat([self.anchors, new[None].to(self.anchors.dtype)]),
            [False] * n + [True],
            [(*cell, n) for cell in self.cells],
            self.weights,
        )
        if self.buffers is not None:  # the new vertex has the mean of the others'
            shares = torch.cat([torch.eye(n), torch.full((1, n), 1 / n)])
            copy.buffers = restack_buffers(shares, self.buffers)
        return copy

    def _across(self, gram: Tensor, seed: int) -> Tensor:
        """A random unit vector (P,), float64, orthogonal to all edges."""
        generator = stream("vertex", seed)
        away: Tensor = torch.randn(self.size, generator=generator, dtype=torch.float64)
        away = away.to(self.device)
        origin, rest = self.anchors[0], self.anchors[1:]
        for _ in range(3 if len(rest) else 0):  # what rounding leaves is taken away again
            along = (inner(rest, away) - inner(origin, away)).cpu()  # a small system
            # the default driver differs in its last bits from call to call
            system = edges_of(gram).cpu()
            share = torch.linalg.lstsq(system, along[:, None], driver="gelsd").solution
            share = torch.cat([-share.sum(0, keepdim=True), share])[:, 0].to(self.device)
            away = away - linear_combination(share[None], self.anchors)[0].double()
            away = away / away.norm()
        unit: Tensor = away / away.norm()
        return unit

    def _rows(self, coords: Any) -> Tensor:
        rows = super()._rows(coords)
        sums = rows.sum(1)
        if len(sums) and not float((sums - 1).abs().max()) <= _SUM:
            raise ConfigError(
                f"coords: barycentric coordinates sum to one, got a sum of "
                f"{float(sums[(sums - 1).abs().argmax()]):.6g}."
            )
        return rows


def _evenly(n: int, generator: torch.Generator | None) -> Tensor:
    """n uniform numbers an n-th apart, in random order: (n,) float64.

    Any interval holds as many as its length says, up to one.
    """
    n = checks.whole("n", n, least=1)
    order = torch.randperm(n, generator=generator)
    return (order + torch.rand(1, generator=generator, dtype=torch.float64)) / n
