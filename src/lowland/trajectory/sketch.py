"""Streaming principal components: a sketch of the scatter of iterates that are not stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from lowland import checks
from lowland.core.layout import ParamLayout
from lowland.errors import LowlandError
from lowland.geometry.pca import blocks, gram_of
from lowland.trajectory.moments import Moments, move


class FrequentDirections(Moments):
    r"""A sketch B of few rows with \(B^T B \approx A^T A\), A the iterates less their mean.

    Frequent directions (Liberty 2013; Ghashami, Liberty, Phillips and Woodruff 2016): rows are
    collected until 2 `rank` of them are held, and then turned to their principal axes and shrunk,
    \(s_i^2 \leftarrow \max(s_i^2 - s_l^2, 0)\), which empties all but l - 1, l = `rank`. For
    every k < l

    \[0 \le x^T (A^T A - B^T B)\, x \le \|A - A_k\|_F^2 / (l - k), \qquad |x| = 1,\]

    \(A_k\) the best approximation of rank k; nothing is lost while the iterates span fewer than l
    dimensions. The n-th row is \(\sqrt{(n - 1) / n}\,(w_n - \bar w_{n - 1})\): the squares of
    these rows sum to the scatter around the mean of *all* iterates (Welford), so that the sketch
    is of the centred matrix though the mean moves. `Subspace.pca` takes it as it takes a
    `Trajectory`. Memory: (2 rank + 1) P values, from the 65th iterate on P more; an update costs
    O(rank P) on average.

    Args:
        layout: of the model whose iterates are averaged. rank: l, at least 2.
        device: where the sketch lives; None: the CPU.

    Attributes:
        discarded: the sum of squares that shrinking has removed.
        error_bound: \(\sum s_l^2\) over all shrinkings, which \(\|A^T A - B^T B\|\) is no larger
            than.

    Raises:
        ConfigError: a rank below 2.

    >>> from torch import nn
    >>> sketch = FrequentDirections(ParamLayout(nn.Linear(2, 1, bias=False)), rank=2)
    >>> for x in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
    ...     sketch.update(torch.tensor([x, 2.0]))
    >>> sketch.mean, (sketch.sketch.T @ sketch.sketch).round()  # 17.5 = 5 variances
    (tensor([3.5000, 2.0000]), tensor([[18.,  0.],
            [ 0.,  0.]]))
    """

    def __init__(
        self, layout: ParamLayout, *, rank: int = 20, device: torch.device | str | None = None
    ) -> None:
        super().__init__(layout, device=device)
        self.rank = checks.whole("rank", rank, least=2)
        self.discarded = 0.0
        self.error_bound = 0.0
        self._filled = 0
        # empty, not zeros: memory is taken as iterates come
        shape = 2 * self.rank, layout.size
        with checks.memory("rank", self.rank):
            self._rows = torch.empty(shape, dtype=self._mean.dtype, device=self.device)

    def _settings(self) -> dict[str, Any]:
        return {"rank": self.rank}

    def _absorb(self, pieces: list[Tensor]) -> None:
        n = self.count
        if self._filled == len(self._rows):
            self._shrink()
        vectors = (self._mean, self._residual_for(1 / n), self._rows[self._filled])
        for w, mean, residual, row in self._parts(pieces, *vectors):
            move(mean, w, 1 / n, residual, scratch=row)
            if n > 1:  # w less the mean without it is n / (n - 1) of w less the mean with it
                torch.sub(w, mean, out=row).mul_(math.sqrt(n / (n - 1)))
        if n > 1:  # the first iterate is its own mean
            self._filled += 1

    def _shrink(self) -> None:
        rows = list(self._rows)
        values, vectors = torch.linalg.eigh(gram_of(rows, centred=True))
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        least = values[self.rank - 1]
        rank = int((values[: self.rank - 1] > least).sum())
        turn = (1 - least / values[:rank]).sqrt()[:, None] * vectors[:, :rank].T
        for part, block, _ in blocks(rows, centred=True):
            self._rows[:rank, part] = (turn @ block).to(self._rows.dtype)
        self.discarded += float(values.sum() - (values[:rank] - least).sum())
        self.error_bound += float(least)
        self._filled = rank

    @property
    def sketch(self) -> Tensor:
        """B, at most (2 rank, P): a view."""
        return self._rows[: self._filled]

    def _part_of(self, layout: ParamLayout, part: slice) -> Self:
        raise LowlandError(
            "a sketch turns all weights together, and is not one of each network; collect with "
            "SWAG, or train the networks one by one."
        )

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "_sketch": self.sketch,
            "_discarded": self.discarded,
            "_error_bound": self.error_bound,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, mapped: bool = False) -> None:
        super().load_state_dict(state, mapped=mapped)
        self._filled = len(state["_sketch"])
        self.sketch.copy_(state["_sketch"])
        self.discarded, self.error_bound = state["_discarded"], state["_error_bound"]
