"""Simplexes: the hull of vertices that lie in general position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from lowland.core.point import Point
from lowland.errors import ConfigError
from lowland.geometry.barycentric import Barycentric
from lowland.geometry.stacking import stack_weight_buffers, stack_weights


class Simplex(Barycentric):
    r"""\(w(c) = \sum_a c_a v_a\), \(c_a \ge 0\), \(\sum_a c_a = 1\) (Benton et al. 2021).

    The uniform distribution on it is Dirichlet(1) in barycentric coordinates. A single vertex is a
    simplex too: `grow` and `fit` make larger ones from it.

    Args:
        anchors: the vertices, a sequence of (P,) or (A, P). free: which of them `fit` may move;
            None: none, as when the next `grow` brings the one that may.

    Raises:
        ConfigError: no vertex; a vertex twice, or vertices without volume; more than P + 1.
        LayoutError: weights of different models. NonFiniteError: NaN or infinity.

    >>> import torch
    >>> simplex = Simplex(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 2.0]]))
    >>> simplex([0.5, 0.25, 0.25])
    tensor([0.7500, 0.5000])
    >>> round(float(simplex.log_volume().exp()), 9)  # the area
    3.0
    >>> simplex.project(torch.tensor([1.0, -1.0])), simplex.contains(torch.tensor([1.0, 1.0]))
    (tensor([1., 0.]), tensor(True))
    >>> Simplex([torch.ones(9)]).grow().free
    (False, True)
    """

    def __init__(
        self, anchors: Sequence[Tensor | Point] | Tensor, *, free: Iterable[bool] | None = None
    ) -> None:
        if isinstance(anchors, Point) or not isinstance(anchors, Sequence | Tensor):
            raise ConfigError(
                f"expected a sequence of vertices, got a {type(anchors).__name__}; one alone is "
                "Simplex([w])."
            )
        if len(anchors) == 0:
            raise ConfigError("a simplex needs at least one vertex.")
        rows = stack_weights(anchors, what="the vertices")
        self.buffers = stack_weight_buffers(anchors)
        self._fill(rows, [False] * len(rows) if free is None else free, [range(len(rows))])
