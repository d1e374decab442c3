"""Points of a box, halved again and again, known by one number each: what quadrature goes over."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

GROWTH = 8  # boxes that are put to either side of one that is too small


@dataclass(frozen=True)
class Lattice:
    """Points low + n * spacing; `side` intervals a side at level 0, twice as many at each next."""

    low: Tensor  # (k,)
    high: Tensor
    side: int
    level: int = 0

    def at(self, level: int) -> Lattice:
        return Lattice(self.low, self.high, self.side, level)

    # A point is known by one number, its indices written in base intervals + 1.

    @property
    def k(self) -> int:
        return len(self.low)

    @property
    def intervals(self) -> int:
        return self.side << self.level

    @property
    def spacing(self) -> Tensor:  # (k,)
        return (self.high - self.low) / self.intervals

    @property
    def strides(self) -> Tensor:  # (k,)
        return (self.intervals + 1) ** torch.arange(self.k - 1, -1, -1)

    @property
    def countable(self) -> bool:
        """Whether the points' numbers are numbers of 64 bits."""
        return bool((self.intervals + 1) ** self.k < 2**63)

    def grown(self) -> Lattice:
        """The same lattice in a box that is larger to all sides."""
        out = GROWTH * (self.high - self.low)
        side = self.side * (2 * GROWTH + 1)
        return Lattice(self.low - out, self.high + out, side, self.level)

    def from_inner(self, keys: Tensor, inner: Lattice) -> Tensor:
        """The numbers here of points of a box that this one has grown from."""
        ahead = (self.intervals - inner.intervals) // 2
        return ((inner.indices(keys) + ahead) * self.strides).sum(1)

    def everything(self) -> Tensor:
        return torch.arange((self.intervals + 1) ** self.k)

    def indices(self, keys: Tensor) -> Tensor:  # (n,) -> (n, k)
        return keys[:, None] // self.strides % (self.intervals + 1)

    def points(self, keys: Tensor) -> Tensor:  # (n,) -> (n, k)
        return self.low + self.indices(keys) * self.spacing

    def on_edge(self, keys: Tensor) -> Tensor:  # (n,) booleans
        indices = self.indices(keys)
        return ((indices == 0) | (indices == self.intervals)).any(1)

    def from_coarser(self, keys: Tensor, coarser: Lattice) -> Tensor:
        """The same points' numbers here; their order stays."""
        return (2 * coarser.indices(keys) * self.strides).sum(1)

    def log_weights(self, keys: Tensor) -> Tensor:
        """log of the trapezoid rule's weights: a cell's volume, half of it on a side of the box."""
        indices = self.indices(keys)
        halves = ((indices == 0) | (indices == self.intervals)).sum(1)
        return self.spacing.log().sum() - math.log(2) * halves

    def beside(self, keys: Tensor) -> Tensor:
        """The neighbours along the axes, inside the box."""
        indices, found = self.indices(keys), []
        for axis, stride in enumerate(self.strides.tolist()):
            found.append(keys[indices[:, axis] > 0] - stride)
            found.append(keys[indices[:, axis] < self.intervals] + stride)
        keys = torch.cat(found).unique()
        return keys

    def around(self, keys: Tensor) -> Tensor:
        """The points and their 3^k - 1 neighbours, inside the box."""
        for axis, stride in enumerate(self.strides.tolist()):
            index = self.indices(keys)[:, axis]
            below, above = keys[index > 0] - stride, keys[index < self.intervals] + stride
            keys = torch.cat([keys, below, above]).unique()
        return keys

    def rises(self, keys: Tensor, values: Tensor) -> Tensor:  # -> (n, k)
        """By axis, the greatest difference to a neighbour that is known; the keys are sorted."""
        indices = self.indices(keys)
        out = values.new_zeros(len(keys), self.k)
        for axis, stride in enumerate(self.strides.tolist()):
            for step in (-1, 1):
                inside = (indices[:, axis] + step >= 0) & (
                    indices[:, axis] + step <= self.intervals
                )
                other = keys + step * stride
                place = torch.searchsorted(keys, other).clamp(max=len(keys) - 1)
                known = inside & (keys[place] == other)
                # both -inf: nothing is known of a slope there
                by = (values[place] - values).abs()
                known &= torch.isfinite(by)  # no slope leads to where there is no density
                out[:, axis] = torch.maximum(out[:, axis], by.where(known, 0.0))
        return out

    def kept(self, keys: Tensor, values: Tensor, rises: Tensor, neglect: float) -> Tensor:
        """The points that may hold mass: all but those whose bounds sum to a share `neglect`."""
        weights = self.log_weights(keys)
        bounds, order = (values + 0.5 * rises.sum(1) + weights).sort()
        total = (values + weights).logsumexp(0)
        dropped = bounds.logcumsumexp(0) < total + math.log(neglect)
        return keys[order[~dropped]].sort().values

    def steepness(self, keys: Tensor, values: Tensor, rises: Tensor) -> float:
        """The mean difference of log density between neighbours: small where it is resolved."""
        weights = (values + self.log_weights(keys)).softmax(0)
        return float(weights @ rises.amax(1).clamp(max=10.0))

    def moments(self, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        logs = values + self.log_weights(keys)
        weights, points = logs.softmax(0), self.points(keys)
        mean = weights @ points
        centred = points - mean
        covariance = (weights[:, None] * centred).T @ centred
        return {"mean": mean, "covariance": covariance, "log_evidence": logs.logsumexp(0)}


def missing(keys: Tensor, known: Tensor) -> Tensor:
    """Those of the keys that are not among the known ones."""
    return keys[~torch.isin(keys, known, assume_unique=True)]


def difference(before: dict[str, Tensor], now: dict[str, Tensor]) -> float:
    """The most that moments have moved, in units of the standard deviations now."""
    # a grid that one point dominates has none: then nothing has settled
    sd = now["covariance"].diagonal().sqrt()
    mean = (now["mean"] - before["mean"]).abs() / sd
    covariance = (now["covariance"] - before["covariance"]).abs() / (sd[:, None] * sd)
    evidence = (now["log_evidence"] - before["log_evidence"]).abs()
    worst = torch.cat([mean, covariance.flatten(), evidence[None]]).max()
    return float(worst.nan_to_num(nan=math.inf))
