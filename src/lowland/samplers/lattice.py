"""Regular lattices in a box, each point with an integer key, for quadrature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

GROWTH = 8  # boxes added on either side of one that is too small


@dataclass(frozen=True)
class Lattice:
    """Points low + n * spacing; `side` intervals a side at level 0, twice as many at each next."""

    low: Tensor  # (k,)
    high: Tensor
    side: int
    level: int = 0

    def at(self, level: int) -> Lattice:
        return Lattice(self.low, self.high, self.side, level)

    # A point's key is its indices, written in base intervals + 1.

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
        """Whether keys fit in 64 bits."""
        return bool((self.intervals + 1) ** self.k < 2**63)

    def enlarged(self) -> Lattice:
        """The same lattice in a box that is larger on all sides."""
        out = GROWTH * (self.high - self.low)
        side = self.side * (2 * GROWTH + 1)
        return Lattice(self.low - out, self.high + out, side, self.level)

    def from_inner(self, keys: Tensor, inner: Lattice) -> Tensor:
        """The keys here of points of a smaller box that was enlarged to this one."""
        ahead = (self.intervals - inner.intervals) // 2
        return ((inner.indices(keys) + ahead) * self.strides).sum(1)

    def all_keys(self) -> Tensor:
        return torch.arange((self.intervals + 1) ** self.k)

    def indices(self, keys: Tensor) -> Tensor:  # (n,) -> (n, k)
        return keys[:, None] // self.strides % (self.intervals + 1)

    def points(self, keys: Tensor) -> Tensor:  # (n,) -> (n, k)
        return self.low + self.indices(keys) * self.spacing

    def on_edge(self, keys: Tensor) -> Tensor:  # (n,) booleans
        indices = self.indices(keys)
        return ((indices == 0) | (indices == self.intervals)).any(1)

    def from_coarser(self, keys: Tensor, coarser: Lattice) -> Tensor:
        """The same points' keys here, in the same order."""
        return (2 * coarser.indices(keys) * self.strides).sum(1)

    def log_weights(self, keys: Tensor) -> Tensor:
        """log of the trapezoid rule's weights: a cell's volume, half of it on a side of the box."""
        indices = self.indices(keys)
        halves = ((indices == 0) | (indices == self.intervals)).sum(1)
        return self.spacing.log().sum() - math.log(2) * halves

    def axis_neighbours(self, keys: Tensor) -> Tensor:
        """The neighbours along the axes, inside the box."""
        indices, neighbours = self.indices(keys), []
        for axis, stride in enumerate(self.strides.tolist()):
            neighbours.append(keys[indices[:, axis] > 0] - stride)
            neighbours.append(keys[indices[:, axis] < self.intervals] + stride)
        keys = torch.cat(neighbours).unique()
        return keys

    def neighbourhood(self, keys: Tensor) -> Tensor:
        """The points and their 3^k - 1 neighbours, inside the box."""
        for axis, stride in enumerate(self.strides.tolist()):
            index = self.indices(keys)[:, axis]
            below, above = keys[index > 0] - stride, keys[index < self.intervals] + stride
            keys = torch.cat([keys, below, above]).unique()
        return keys

    def rises(self, keys: Tensor, values: Tensor) -> Tensor:  # -> (n, k)
        """For each axis the greatest difference to a neighbour among the keys, which are sorted."""
        indices = self.indices(keys)
        out = values.new_zeros(len(keys), self.k)
        for axis, stride in enumerate(self.strides.tolist()):
            for step in (-1, 1):
                inside = (indices[:, axis] + step >= 0) & (
                    indices[:, axis] + step <= self.intervals
                )
                other = keys + step * stride
                place = torch.searchsorted(keys, other).clamp(max=len(keys) - 1)
                present = inside & (keys[place] == other)
                # between two values of -inf there is no slope
                by = (values[place] - values).abs()
                present &= torch.isfinite(by)  # nor towards one
                out[:, axis] = torch.maximum(out[:, axis], by.where(present, 0.0))
        return out

    def holding_mass(self, keys: Tensor, values: Tensor, rises: Tensor, neglect: float) -> Tensor:
        """The points that may hold mass: all but those whose bounds sum to the share `neglect`."""
        weights = self.log_weights(keys)
        bounds, order = (values + 0.5 * rises.sum(1) + weights).sort()
        total = (values + weights).logsumexp(0)
        negligible = bounds.logcumsumexp(0) < total + math.log(neglect)
        return keys[order[~negligible]].sort().values

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


def missing(keys: Tensor, others: Tensor) -> Tensor:
    """The keys that are not among the others."""
    return keys[~torch.isin(keys, others, assume_unique=True)]


def difference(before: dict[str, Tensor], now: dict[str, Tensor]) -> float:
    """The greatest change of the moments, in units of the standard deviations now."""
    # a grid that one point dominates has no standard deviation, and has not converged
    sd = now["covariance"].diagonal().sqrt()
    mean = (now["mean"] - before["mean"]).abs() / sd
    covariance = (now["covariance"] - before["covariance"]).abs() / (sd[:, None] * sd)
    evidence = (now["log_evidence"] - before["log_evidence"]).abs()
    worst = torch.cat([mean, covariance.flatten(), evidence[None]]).max()
    return float(worst.nan_to_num(nan=math.inf))
