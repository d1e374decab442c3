"""How different the members of an ensemble are, as weights and as functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lowland.records.base import Record
from lowland.records.table import Table


@dataclass(frozen=True, eq=False)
class DiversityResult(Record):
    r"""Differences between n members: matrices (n, n), and what the members' average gains.

    Attributes:
        names: of the members.
        cosine_mean: of the angles between them at their mean.
        cosine_start: at a common start; None: none was given.
        distance: \(|w_i - w_j|\).
        disagreement: the share of items whose predicted classes differ; None for regression.
        kl: \(\mathrm{KL}(p_i \| p_j)\) of the predictions, in nats, the mean over items; None for
            tasks of which it is not known.
        member_nll: (n,), in nats per item; None for examples without targets.
        ensemble_nll: of the average of the members' predictions.
        items: of the predictions. batchnorm: the policy of BatchNorm statistics.

    >>> import torch
    >>> one = torch.ones(2, 2)
    >>> record = DiversityResult(
    ...     ["a", "b"], one, None, one, one - torch.eye(2), None, torch.tensor([0.5, 0.7]), 0.45
    ... )
    >>> round(record.gap, 2), record.mean("disagreement")
    (0.15, 1.0)
    """

    figure = "diversity"
    names: list[str]
    cosine_mean: Tensor
    cosine_start: Tensor | None
    distance: Tensor
    disagreement: Tensor | None = None
    kl: Tensor | None = None
    member_nll: Tensor | None = None
    ensemble_nll: float = math.nan
    items: int = 0
    batchnorm: str = "refresh"

    @property
    def matrices(self) -> dict[str, Tensor]:
        """The matrices that there are, by name."""
        names = ("cosine_mean", "cosine_start", "distance", "disagreement", "kl")
        values = {name: getattr(self, name) for name in names}
        return {name: matrix for name, matrix in values.items() if matrix is not None}

    @property
    def gap(self) -> float:
        """The mean NLL of the members minus that of their ensemble: never negative."""
        return (
            math.nan
            if self.member_nll is None
            else (float(self.member_nll.mean()) - self.ensemble_nll)
        )

    def mean(self, name: str) -> float:
        """The mean of a matrix over the pairs of different members."""
        return float(self._by_member(self.matrices[name]).mean())

    @property
    def table(self) -> Table:
        """One row per member: its NLL, and the mean of each matrix over the other members."""
        columns: dict[str, Any] = {"member": self.names}
        if self.member_nll is not None:
            columns["nll"] = self.member_nll
        return Table(columns | {n: self._by_member(m) for n, m in self.matrices.items()})

    def _by_member(self, matrix: Tensor) -> Tensor:  # (n, n) -> (n,)
        n = len(matrix)
        return (matrix.sum(1) - matrix.diagonal()) / max(n - 1, 1)

    def __str__(self) -> str:
        if self.member_nll is None:
            return str(self.table)
        return (
            f"{self.table}\nNLL of the ensemble: {self.ensemble_nll:.4f}, {self.gap:.4f} below the "
            "mean of its members."
        )
