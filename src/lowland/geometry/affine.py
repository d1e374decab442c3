"""What flat shapes share: a centre, directions, and projection onto them."""

from __future__ import annotations

from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from lowland.core.buffers import Buffers
from lowland.core.inner import inner
from lowland.core.point import Point
from lowland.errors import ConfigError
from lowland.geometry.base import Shape, linear_combination
from lowland.geometry.stacking import check_anchors, stack_weight_buffers, stack_weights

_WHAT = "the center and the directions"
_CHUNK = 1 << 20  # values turned to float64 at a time
_FLAT = 1e-6  # sine of an angle below which float32 directions are no longer apart


class Affine(Shape):
    r"""\(w(z) = \hat w + z\, B\): the anchors are a centre and k directions, none free."""

    def __init__(self, center: Tensor | Point, directions: Tensor) -> None:
        anchors = stack_weights([center, *directions], what=_WHAT)
        self._hold(anchors, buffers=stack_weight_buffers([center]))

    @classmethod
    def _of(cls, anchors: Tensor, *, buffers: Buffers | None = None) -> Self:  # (1 + k, P)
        """What `__init__` makes of anchors that nobody else has: they are not copied."""
        shape = cls.__new__(cls)
        check_anchors(anchors, what=_WHAT)
        shape._hold(anchors, buffers=buffers)
        return shape

    def _hold(self, anchors: Tensor, *, buffers: Buffers | None) -> None:
        Shape.__init__(self, anchors, free=[False] * len(anchors))
        self.k = len(anchors) - 1
        self.buffers = buffers
        require_independent(anchors[1:])

    @property
    def center(self) -> Tensor:
        """w at coordinates zero, (P,)."""
        return self.anchors[0]

    @property
    def basis(self) -> Tensor:
        """The directions, (k, P)."""
        return self.anchors[1:]

    def coefficients(self, coords: Tensor) -> Tensor:  # (n, k) -> (n, 1 + k)
        return torch.cat([torch.ones_like(coords[:, :1]), coords], dim=1)

    def slopes(self, coords: Tensor) -> Tensor:  # (n, k) -> (n, k, 1 + k)
        eye = torch.eye(self.k, 1 + self.k, dtype=torch.float64, device=self.device)
        return eye.roll(1, 1).expand(len(self._rows(coords)), -1, -1)

    @cached_property
    def _basis_gram(self) -> Tensor:
        """Inner products of the directions, (k, k) float64."""
        return inner(self.basis, self.basis)

    def with_anchors(self, anchors: Tensor) -> Self:
        copy = super().with_anchors(anchors)
        vars(copy).pop("_basis_gram", None)
        return copy

    def _nearest(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """By least squares: directions need not be orthonormal."""
        gram = self._basis_gram
        z = torch.linalg.solve(gram, inner(self.basis, w - self.center))
        rest = w - self(z[None])[0]
        # once more on what is left: float32 sums of large directions leave a little of them
        more = torch.linalg.solve(gram, inner(self.basis, rest))
        rest = rest - linear_combination(more[None], self.basis)[0]
        return z + more, inner(rest, rest).sqrt()


def require_independent(directions: Tensor, *, noise: float = 0.0) -> None:  # (k, P)
    """Raises `ConfigError` where directions are zero or depend on one another.

    `noise`: a length; what a direction adds to the others and is no longer than it is rounding.
    """
    gram = inner(directions, directions)
    norms = gram.diagonal().sqrt()
    if bool((norms == 0).any()):
        raise ConfigError("a direction is zero: two of the points are the same weights.")
    unit = gram / norms / norms[:, None]
    flat = max(_FLAT, noise / float(norms.min()))
    if float(torch.linalg.eigvalsh(unit)[0]) < flat**2:
        raise ConfigError(
            "the directions depend on one another, as those of three points on a line do; give "
            "others."
        )


def rounding(points: Tensor) -> float:  # (n, P)
    """A bound on how far a point moves when it is computed from others and rounded."""
    return 2 * torch.finfo(points.dtype).eps * float(points.norm(dim=1).max())


def orthonormal(directions: Tensor) -> Tensor:  # (k, P) -> (k, P)
    """Gram and Schmidt, each direction twice: once leaves float32's rounding of long vectors."""
    return orthonormalise_(directions.clone())


def orthonormalise_(directions: Tensor) -> Tensor:  # (k, P)
    """`orthonormal` in place: beside the directions one row in float64."""
    row = torch.empty_like(directions[0], dtype=torch.float64)
    for i, direction in enumerate(directions):
        row.copy_(direction)
        for _ in range(2):
            for done in directions[:i]:
                along = inner(done, row).item()
                for to, part in zip(row.split(_CHUNK), done.split(_CHUNK), strict=True):
                    to -= along * part.double()
        direction.copy_(row.div_(row.norm()))
    return directions
