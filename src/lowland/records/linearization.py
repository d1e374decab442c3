"""How the predictions of a weight average and of the ensemble of its members differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland.errors import DataError
from lowland.records.base import Record
from lowland.records.table import Table

TERMS = ("difference", "first_order", "second_order", "remainder")


@dataclass(frozen=True, eq=False)
class LinearizationResult(Record):
    r"""The outputs of n members expanded around their average w, and their predictions.

    With \(\Delta_i = w_i - w\), the terms of \(f(w_i) - f(w)\) are \(\nabla f(w) \Delta_i\) and
    \(\tfrac12 \Delta_i^T \nabla^2 f(w) \Delta_i\). Norms are Euclidean, over the outputs of an
    example, or over its predictions.

    Attributes:
        distance: (n,), \(|\Delta_i|\).
        terms: (n, N) each, norms of N examples: "difference", of \(f(w_i) - f(w)\); "first_order"
            and "second_order", of its terms; "remainder", of the difference less both.
        mean_terms: (N,) each, norms of the means of these over members: "difference" is that of
            the average output from the average's output.
        scales: (S,), s, from 1 down: the members are at \(w + s \Delta_i\).
        ensemble: (S, M), norms of the ensemble's prediction, the mean of the members', less the
            average's prediction, for M items.
        consecutive: (S, M), norms of the prediction of a member less that of the next one, the mean
            over members.
        names: of the members, where they have some.
        batchnorm: the policy of BatchNorm statistics, which are the average's for all members;
            "none" for models without any.

    >>> ones = torch.ones(2, 1)
    >>> terms = {name: ones for name in ("difference", "first_order", "second_order", "remainder")}
    >>> mean_terms = {name: values[0] for name, values in terms.items()}
    >>> scales = torch.tensor([1.0, 0.5])
    >>> record = LinearizationResult(
    ...     ones[:, 0], terms, mean_terms, scales, scales[:, None] ** 2, scales[:, None]
    ... )
    >>> record.slopes
    {'ensemble': 2.0, 'consecutive': 1.0}
    """

    figure = "linearization"
    distance: Tensor
    terms: dict[str, Tensor]
    mean_terms: dict[str, Tensor]
    scales: Tensor
    ensemble: Tensor
    consecutive: Tensor
    names: list[str] | None = None
    batchnorm: str = "refresh"

    def __post_init__(self) -> None:
        n, count = len(self.distance), len(self.scales)
        for name in TERMS:
            if name not in self.terms or name not in self.mean_terms:
                raise DataError(f"terms: expected {', '.join(TERMS)}, got no {name}.")
            if len(self.terms[name]) != n:
                raise DataError(f"{name}: expected {n} rows, got {len(self.terms[name])}.")
        if not count == len(self.ensemble) == len(self.consecutive):
            raise DataError(
                f"expected a row for each of {count} scales, got {len(self.ensemble)} and "
                f"{len(self.consecutive)}."
            )

    @property
    def examples(self) -> int:
        """How many examples the outputs are of."""
        return self.terms["difference"].shape[1]

    @property
    def table(self) -> Table:
        """A row a member: its distance, and the means over examples of the norms of its terms. The
        last row is the mean of the members' outputs."""
        n = len(self.distance)
        names = list(self.names or map(str, range(n)))
        columns: dict[str, Any] = {"member": [*names, "mean output"]}
        columns["distance"] = torch.cat([self.distance.double(), torch.tensor([math.nan]).double()])
        for name in TERMS:
            rows = [self.terms[name].double().mean(1), self.mean_terms[name].double().mean()[None]]
            columns[name] = torch.cat(rows)
        return Table(columns)

    @property
    def scale_table(self) -> Table:
        """A row a scale: the members' mean distance, and the means over items of the differences of
        predictions."""
        return Table(
            {
                "scale": self.scales.double(),
                "distance": self.scales.double() * self.distance.double().mean(),
                "ensemble": self.ensemble.double().mean(1),
                "consecutive": self.consecutive.double().mean(1),
            }
        )

    @property
    def slopes(self) -> dict[str, float]:
        """Of the logarithm of each difference of predictions in that of the scale, by least
        squares: NaN where there is one scale, or a difference that is zero."""
        table = self.scale_table
        x = table.scale.log()
        x = x - x.mean()
        names = ("ensemble", "consecutive")
        return {name: float(x @ table.columns[name].log() / x.square().sum()) for name in names}

    @property
    def message(self) -> str:
        """The two differences of predictions, in one line."""
        ensemble, members = (
            float(values[0].double().mean()) for values in (self.ensemble, self.consecutive)
        )
        return (
            f"The ensemble's prediction differs from the average's by {ensemble:.3g}; those of "
            f"consecutive members differ by {members:.3g}."
        )

    def __str__(self) -> str:
        if len(self.scales) == 1:
            return f"{self.table}\n\n{self.message}"
        slopes = ", ".join(f"{name} {slope:.2f}" for name, slope in self.slopes.items())
        return f"{self.table}\n\n{self.scale_table}\n\n{self.message} Slopes: {slopes}."
