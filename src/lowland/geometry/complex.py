"""Simplicial complexes: simplexes that share vertices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowland import checks
from lowland.core.buffers import Buffers, stack_buffers
from lowland.core.point import Point, as_point
from lowland.errors import ConfigError, LayoutError
from lowland.geometry.barycentric import Barycentric, Drawn
from lowland.geometry.simplex import Simplex
from lowland.geometry.stacking import stack_weight_buffers, stack_weights

WEIGHTS = ("volume", "equal")


class SimplicialComplex(Barycentric):
    r"""A union of simplexes, each drawn in proportion to its volume (Benton et al. 2021).

    Vertices that are equal bit by bit are one vertex. The volume is the sum of the simplexes'
    volumes: where they overlap it counts as often as they do.

    Args:
        simplexes: of one model and one dimension. A vertex is free where any of them says so.
        weights: "volume"; or "equal", which simplexes of different dimensions need, since their
            volumes are no lengths of the same kind.

    Raises:
        ConfigError: no simplex, one given twice, different dimensions under weights="volume".
        LayoutError: simplexes of different models.

    >>> left = Simplex(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    >>> right = Simplex(torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]]))
    >>> both = SimplicialComplex([left, right])
    >>> both.cells, both.shares()
    (((0, 1, 2), (1, 2, 3)), tensor([0.1667, 0.8333], dtype=torch.float64))
    """

    def __init__(self, simplexes: Sequence[Simplex], *, weights: Drawn = "volume") -> None:
        if not simplexes:
            raise ConfigError("a complex needs at least one simplex.")
        checks.choice("weights", weights, WEIGHTS)
        if len({simplex.size for simplex in simplexes}) > 1:
            sizes = ", ".join(str(simplex.size) for simplex in simplexes)
            raise LayoutError(f"simplexes of different models, with P = {sizes}.")
        counts = sorted({len(simplex.anchors) for simplex in simplexes})
        if len(counts) > 1 and weights == "volume":
            raise ConfigError(
                f"simplexes of {' and '.join(map(str, counts))} vertices have volumes of different "
                "dimensions, which do not compare; say weights='equal'."
            )
        wide = any(simplex.anchors.dtype == torch.float64 for simplex in simplexes)
        dtype = torch.float64 if wide else torch.float32
        vertices: list[Tensor] = []
        buffers: list[Buffers | None] = []
        free: list[bool] = []
        cells = []
        for simplex in simplexes:
            cell = []
            for i, (anchor, may) in enumerate(
                zip(simplex.anchors.to(dtype), simplex.free, strict=True)
            ):
                place = _place(anchor, vertices)
                if place == len(vertices):
                    vertices.append(anchor.to(simplexes[0].device))
                    free.append(False)
                    buffers.append(simplex.anchor_buffers(i))
                free[place] |= may
                cell.append(place)
            cells.append(tuple(cell))
        if len({frozenset(cell) for cell in cells}) < len(cells):
            raise ConfigError("a simplex occurs twice in the complex; leave one out.")
        self.buffers = stack_buffers(buffers)
        self._fill(torch.stack(vertices), free, cells, weights)

    @classmethod
    def connecting(
        cls, modes: Sequence[Tensor | Point], connectors: Sequence[Tensor | Point] = ()
    ) -> SimplicialComplex:
        """The form that joins modes: simplex i is mode i with all connectors, which are free and
        come behind the modes among the vertices.

        Without connectors it is the modes alone; `grow` adds them one by one.

        Raises:
            ConfigError: fewer than two modes, or two that are the same.
        """
        if len(modes) < 2:
            raise ConfigError(f"modes: expected at least two to connect, got {len(modes)}.")
        apart: list[Tensor] = []
        for i, mode in enumerate(modes):
            w = as_point(mode, what=f"mode {i}").weights
            if (same := _place(w, apart)) < i:
                raise ConfigError(
                    f"modes {same} and {i} are the same weights; give networks of other seeds."
                )
            apart.append(w)
        shape = cls.__new__(cls)
        rows = stack_weights([*modes, *connectors], what="the modes and connectors")
        shared = range(len(modes), len(rows))
        free = [i in shared for i in range(len(rows))]
        shape._fill(rows, free, [(i, *shared) for i in range(len(modes))])
        shape.buffers = stack_weight_buffers([*modes, *connectors])
        return shape

    # -- its own distribution --------------------------------------------------------------------

    @property
    def measure_depends_on_anchors(self) -> bool:
        return self.weights == "volume" and len(self.cells) > 1

    def density(self, coords: Tensor, gram: Tensor) -> Tensor:  # (S, A), (A, A) -> (S,)
        """The probability of each point's simplex."""
        outside = ((coords != 0)[:, None] & ~self.members().to(coords.device)).sum(2)  # (S, cells)
        return self.shares(gram)[outside.argmin(1)]


def _place(anchor: Tensor, among: list[Tensor]) -> int:
    """The number of the vertex that it is, or the next number."""
    for i, other in enumerate(among):
        if torch.equal(anchor.to(other.device), other):
            return i
    return len(among)
