"""How far predictions can be trusted: calibration, selection, shift."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lowland.records.base import Record


@dataclass(frozen=True, eq=False)
class Reliability(Record):
    """Confidence against accuracy in equal bins of confidence: (bins,) each; empty bins are NaN."""

    figure = "reliability"
    confidence: Tensor
    accuracy: Tensor
    count: Tensor

    @property
    def ece(self) -> float:
        """Expected calibration error: |accuracy - confidence|, weighted by count."""
        gap = (self.accuracy - self.confidence).abs().nan_to_num(0.0)
        return float((gap * self.count).sum() / self.count.sum())


@dataclass(frozen=True, eq=False)
class RiskCoverage(Record):
    """Selective prediction: the error on the most certain examples against their share; (N,) each.

    >>> record = RiskCoverage(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.5]))
    >>> record.aurc, record.excess
    (0.25, 0.0)
    """

    figure = "risk_coverage"
    coverage: Tensor
    risk: Tensor

    @property
    def aurc(self) -> float:
        """Area under the curve: the mean of the risk over coverages 1/N, 2/N... 1."""
        return float(self.risk.double().mean())

    @property
    def excess(self) -> float:
        """AURC minus that of the best order, which has all wrong examples last (0-1 loss)."""
        n = len(self.risk)
        right = n - round(n * float(self.risk[-1]))
        covered = torch.arange(1, n + 1, dtype=torch.float64)
        return self.aurc - float(((covered - right).clamp_min(0) / covered).mean())


@dataclass(frozen=True, eq=False)
class ShiftCurves(Record):
    """Metrics under corruptions of growing strength: for each kind, (S,) of each metric.

    `strength`: (S,), 0 for the clean examples. `curves`: {kind: {"nll": (S,), ...}}, mean over runs
    where there are several, and then `errors`, of the same form, their standard errors.

    >>> nll = {
    ...     "noise": {"nll": torch.tensor([0.25, 0.5])},
    ...     "blur": {"nll": torch.tensor([0.25, 1])},
    ... }
    >>> ShiftCurves(torch.tensor([0, 1]), nll).mean("nll")
    tensor([0.2500, 0.7500])
    """

    figure = "shift"
    strength: Tensor
    curves: dict[str, dict[str, Tensor]]
    errors: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def mean(self, metric: str) -> Tensor:
        """Mean over kinds of one metric, (S,)."""
        return torch.stack([curve[metric] for curve in self.curves.values()]).mean(0)
