"""SWAG: the first two moments of SGD iterates, and their last deviations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lowland import checks
from lowland.core.layout import ParamLayout
from lowland.core.spread import warn_if_still
from lowland.errors import ConfigError
from lowland.files import PathLike
from lowland.posteriors import Gaussian
from lowland.trajectory.moments import Moments, move
from lowland.warn import warn


class SWAG(Moments):
    r"""The first two moments of the iterates (Maddox et al. 2019).

    Mean and variance run over all iterates (Welford, over n: \(E[w^2] - E[w]^2\) would cancel);
    the last `rank` deviations, each an iterate minus the mean updated with it, are the columns of
    the low-rank factor. Memory: (rank + 2) P values, from the 65th iterate on (rank + 3) P.

    Args:
        layout: of the model whose iterates are averaged.
        rank: deviations to keep, at least 2; 0 for SWAG-diagonal.
        deviations_dtype: of the deviations; bfloat16 halves the memory.
        device: where the moments live. path: a file that the deviations are mapped to instead of
            memory, made anew; for models whose deviations do not fit. Resident memory (`top`'s RES)
            still grows by a row an update, as pages of a mapped file count in it; the system
            writes them to the file and takes them back when memory is short. Private memory
            (RssAnon in /proc/PID/status) does not grow.

    Raises:
        ConfigError: rank 1 or negative. LowlandError: `posterior()` of fewer than two iterates.

    >>> from torch import nn
    >>> swag = SWAG(ParamLayout(nn.Linear(1, 1, bias=False)), rank=2)
    >>> for value in (1.0, 3.0):
    ...     swag.update(torch.tensor([value]))
    >>> swag.mean, swag.variance, swag.deviations
    (tensor([2.]), tensor([1.]), tensor([[0.],
            [1.]]))
    """

    _state_names = ("_mean", "_variance")

    def __init__(
        self,
        layout: ParamLayout,
        *,
        rank: int = 20,
        deviations_dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        path: PathLike | None = None,
    ) -> None:
        super().__init__(layout, device=device)
        self.rank = checks.whole("rank", rank, least=0)
        if self.rank == 1:
            raise ConfigError("rank: expected 0 (diagonal) or at least 2, got 1.")
        dtype = layout.dtype if deviations_dtype is None else deviations_dtype
        self.deviations_dtype = checks.dtype("deviations_dtype", dtype)
        self._variance = self._zeros()
        shape = (self.rank, layout.size)
        if path is not None and self.rank:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).unlink(missing_ok=True)  # others may still have the old one mapped
            with checks.memory("rank", self.rank):
                flat = torch.from_file(
                    str(path), shared=True, size=math.prod(shape), dtype=self.deviations_dtype
                )
            self._ring = flat.view(shape)
        else:
            # empty, not zeros: memory is taken as iterates come
            with checks.memory("rank", self.rank):
                self._ring = torch.empty(shape, dtype=self.deviations_dtype, device=self.device)

    def _settings(self) -> dict[str, Any]:
        dtype = str(self.deviations_dtype).removeprefix("torch.")
        return {"rank": self.rank, "deviations_dtype": dtype}

    def _absorb(self, pieces: list[Tensor]) -> None:
        n = self.count
        row = self._ring[(n - 1) % self.rank] if self.rank else None
        # worked out in the row that is to hold it, so that it passes through memory once
        direct = (
            row is not None and row.dtype == self._mean.dtype and row.device == self._mean.device
        )
        vectors = (self._mean, self._variance, self._residual_for(1 / n), row)
        for w, mean, variance, residual, out in self._parts(pieces, *vectors):
            deviation = out if direct else torch.empty_like(mean)
            move(mean, w, 1 / n, residual, scratch=deviation)
            torch.sub(w, mean, out=deviation)
            # Welford: (w - old mean)(w - new mean) = (w - new mean)^2 n / (n - 1) >= 0
            if residual is not None:
                # one number is added, rounded once, or many iterates' variance would stand still
                change = torch.addcmul(variance, deviation, deviation, value=-n / (n - 1))
                variance.sub_(change, alpha=1 / n)
            elif n > 1:
                variance.mul_((n - 1) / n).addcmul_(deviation, deviation, value=1 / (n - 1))
            if out is not None and not direct:
                out.copy_(deviation)

    @property
    def variance(self) -> Tensor:
        """The variance of the iterates over n, (P,): a view."""
        self._require(1)
        return self._variance

    @property
    def deviations(self) -> Tensor:
        """The deviations held, (K, P), K = min(rank, iterates): a view.

        A ring: once it is full, the oldest row is overwritten, so rows are not in order of time.
        """
        return self._ring[: min(self.count, self.rank)]

    def posterior(self, *, scale: float = 1.0) -> Gaussian:
        """The Gaussian with these moments; a view, so it follows later updates.

        Warns if there are fewer iterates than `rank`, and if they hardly differ, as after a
        learning rate that has decayed to nearly zero: every draw is then the mean.
        """
        self._require(2)
        if self.count < self.rank:
            warn(
                f"SWAG of rank {self.rank} holds {self.count} iterates, so its covariance has "
                f"{self.count} columns; collect more, or ask for a lower rank.",
            )
        # the variance alone: one pass over it, where the deviations may be a file
        ratio = Gaussian(self.mean, self.variance).relative_spread
        warn_if_still(ratio, so="so that every draw of SWAG is the mean at any scale")
        deviations = self.deviations if self.rank else None
        post = Gaussian(self.mean, self.variance, deviations, scale=scale, buffers=self.buffers)
        return post.remember(self.frozen)

    def _part_of(self, layout: ParamLayout, part: slice) -> Self:
        one = super()._part_of(layout, part)
        one._ring = self._ring[:, part]
        return one

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"_deviations": self.deviations}

    def load_state_dict(self, state: Mapping[str, Any], *, mapped: bool = False) -> None:
        super().load_state_dict(state, mapped=mapped)
        if mapped:
            self._ring = state["_deviations"]
        else:
            self.deviations.copy_(state["_deviations"])
