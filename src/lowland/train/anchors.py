"""The anchors of a shape while they are trained, and what their inner products decide."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lowland.core.inner import inner
from lowland.geometry import Curve, Shape
from lowland.geometry.barycentric import Barycentric
from lowland.geometry.base import rounds_matmul

CHUNK = 1 << 15  # weights of every anchor that are read together: they stay in the cache
_MIN_ASPECT = 0.03  # height to length of a simplex, below which float32 loses its volume


class Anchors(nn.Module):
    """The anchors of a shape as rows of one matrix: the free ones are parameters (P,).

    >>> from lowland.geometry import Bezier
    >>> anchors = Anchors(Bezier.between(torch.zeros(2), torch.ones(2)))
    >>> len(anchors.free), anchors.free_indices, anchors.matrix[1]
    (1, [1], tensor([0.5000, 0.5000]))
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.matrix = shape.anchors.detach().clone()  # (A, P)
        # views, so that the optimizer writes into the matrix
        self.free = nn.ParameterList(
            nn.Parameter(row) for row, free in zip(self.matrix, shape.free, strict=True) if free
        )
        self.free_indices = [i for i, free in enumerate(shape.free) if free]

    @torch.no_grad()
    def attach(self) -> None:
        """Makes the parameters views of the matrix again, after an optimizer replaced the data of
        one."""
        for i, parameter in zip(self.free_indices, self.free, strict=True):
            row = self.matrix[i]
            if parameter.data_ptr() != row.data_ptr():
                parameter.data = row.copy_(parameter)

    def current_shape(self) -> Shape:
        """The shape with the present values of the anchors."""
        return self.shape.with_anchors(self.matrix.clone())


def sample_weights(shape: Shape, measure: str) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The importance weights of samples, as a function of their coordinates and the anchors' inner
    products; None: all are one."""
    if measure == "arc":
        assert isinstance(shape, Curve)
        return lambda coords, gram: shape.speed(coords, gram) / shape.arc(gram)
    if not shape.measure_depends_on_anchors:
        return None
    start = anchor_gram(shape.anchors, shape)  # coordinates are always drawn for these anchors
    return lambda coords, gram: shape.density(coords, gram) / shape.density(coords, start)


def anchor_gram(anchors: Tensor, shape: Shape) -> Tensor:  # (A, P) -> (A, A)
    """Inner products of the anchors relative to the first: lengths and volumes depend on no more.

    Products of chunks of float32 anchors are float32, and summed in float64: this is enough for a
    gradient, and takes a third of the time. It is not enough for the volume of a simplex that is a
    hundred times longer than high, which float64 products are taken for.
    """
    if anchors.dtype == torch.float64 or rounds_matmul(anchors.device):
        return inner(anchors, anchors, origin=anchors[0])
    total = torch.zeros(len(anchors), len(anchors), dtype=torch.float64, device=anchors.device)
    for part in anchors.split(CHUNK, dim=1):
        edges = part - part[:1]
        total += edges @ edges.T
    if isinstance(shape, Barycentric):
        squares = torch.linalg.eigvalsh(total[1:, 1:])
        if len(squares) and bool(squares[0] < _MIN_ASPECT**2 * squares[-1]):
            return inner(anchors, anchors, origin=anchors[0])
    return total
