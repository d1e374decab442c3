"""Planes: through three points, or along two directions."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland import checks
from lowland.core.point import Point
from lowland.errors import ConfigError
from lowland.geometry.affine import Affine, orthonormal, require_independent, rounding
from lowland.geometry.stacking import stack_weight_buffers, stack_weights

_SQUARISH = 2 / 3  # of a box's longer side: what the shorter one is at least


class Plane(Affine):
    r"""\(w(x, y) = \hat w + x\, u + y\, v\).

    `Plane.through(a, b, c)` has orthonormal u, v, so distances are those of weight space;
    `Plane(w, u, v)` uses directions unchanged, such as filter-normalised ones.

    Attributes:
        marks: (m, 2), coordinates of the points that it was made of.

    >>> plane = Plane.through(torch.zeros(3), torch.tensor([2.0, 0, 0]), torch.tensor([1.0, 1, 0]))
    >>> plane.marks
    tensor([[0., 0.],
            [2., 0.],
            [1., 1.]], dtype=torch.float64)
    >>> plane.coords_of(torch.tensor([1.0, 1.0, 5.0]))
    (tensor([1., 1.], dtype=torch.float64), tensor(5., dtype=torch.float64))
    """

    marks: Tensor

    def __init__(self, center: Tensor | Point, u: Tensor, v: Tensor) -> None:
        super().__init__(center, stack_weights([u, v], what="the directions"))
        self.marks = torch.zeros(1, 2, dtype=torch.float64)

    @classmethod
    def through(cls, a: Tensor | Point, b: Tensor | Point, c: Tensor | Point) -> Plane:
        """The plane of three weight vectors, its first direction from a to b.

        Raises:
            ConfigError: three points on a line. LayoutError: weights of different models.
        """
        points = stack_weights([a, b, c], what="the points")
        directions = points[1:] - points[0]
        try:
            require_independent(directions, noise=rounding(points))
        except ConfigError:
            raise ConfigError(
                "the three points lie on a line, or two of them are the same weights; give a third "
                "that is off the line of the others."
            ) from None
        plane = cls(points[0], *orthonormal(directions))
        plane.marks, _ = plane.coords_of(points)
        plane.marks[0] = 0.0
        plane.buffers = stack_weight_buffers([a, b, c])
        return plane

    def anchor_shares(self, coords: Tensor) -> Tensor:  # (n, 2) -> (n, 3)
        """The barycentric coordinates of the three points, where the plane is through such."""
        if len(self.marks) != 3:
            return super().anchor_shares(coords)
        marks = self.marks.to(coords)
        share = torch.linalg.solve(marks[1:].T - marks[:1].T, (coords - marks[:1]).T).T
        return torch.cat([1 - share.sum(1, keepdim=True), share], dim=1)

    def sample_coords(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Uniform in the box of the marks, or in [-1, 1]² where there is only one: (n, 2)."""
        n = checks.whole("n", n, least=1)
        low, high = self.marks.min(0).values, self.marks.max(0).values
        if len(self.marks) == 1:
            low, high = low - 1, high + 1
        u = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        return (low + u.to(low) * (high - low)).to(self.device)

    def box(self, margin: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """((x0, x1), (y0, y1)) around the marks, wider to each side by `margin` of the larger of
        their two extents, the shorter side at least 2/3 of the longer one; [-1, 1] twice where
        there is one mark alone.

        Without a least height, three points that lie nearly on a line would be seen in a stripe.

        >>> plane = Plane.through(*torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.0, 0.0625]]))
        >>> plane.box(0.0)
        ((0.0, 3.0), (-0.96875, 1.03125))
        """
        margin = checks.number("margin", margin, above=-0.5)  # where it is empty
        if len(self.marks) == 1:
            return (-1.0, 1.0), (-1.0, 1.0)
        low, high = self.marks.min(0).values, self.marks.max(0).values
        middle, size = (low + high) / 2, (high - low) + 2 * margin * (high - low).max()
        half = torch.maximum(size, _SQUARISH * size.max()) / 2
        low, high = middle - half, middle + half
        (x0, y0), (x1, y1) = low.tolist(), high.tolist()
        return (x0, x1), (y0, y1)
