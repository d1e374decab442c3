"""Which temperature and prior predict best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lowland.errors import DataError
from lowland.records.base import Record


@dataclass(frozen=True, eq=False)
class TemperingResult(Record):
    r"""Validation metrics of model averages over \(p(D|z)^{1/T}\, N(z; 0, s^2 I)\), one row per (T,
    s).

    A subspace has far fewer dimensions than the network, so the likelihood of all examples is
    tempered; T is chosen on validation examples (Izmailov et al. 2019).

    Attributes:
        temperatures, prior_scales: (n,), T and s of each pair; s is infinite for a flat prior.
        nll: (n,), of the model average on validation examples, in nats per item.
        second_metric: (n,), another metric of the same examples, whose name is
            `second_metric_name`: "rmse", in the target's units, or "error", a fraction; None: none.
        best: the index of the best pair.
        samples: draws in each average. evaluations: of the log-likelihood, of all pairs.
        nll_se: (n,), standard errors of `nll`, where they are known. seconds: what it took.

    >>> import torch
    >>> scales = torch.ones(2)
    >>> record = TemperingResult(
    ...     torch.tensor([1.0, 100.0]), scales, torch.tensor([0.5, 0.25]), best=1
    ... )
    >>> record.temperature, record.prior_scale
    (100.0, 1.0)
    """

    figure = "tempering"
    temperatures: Tensor
    prior_scales: Tensor
    nll: Tensor
    second_metric: Tensor | None = None
    second_metric_name: str = "rmse"
    best: int = 0
    samples: int = 0
    evaluations: int = 0
    nll_se: Tensor | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        n = len(self.nll)
        columns = {name: values for name, values in self._columns().items() if len(values) != n}
        for name, values in columns.items():
            raise DataError(f"{name}: expected {n} values, one for each nll, got {len(values)}.")
        if self.second_metric_name not in ("rmse", "error"):
            raise DataError(
                f"second_metric_name: expected 'rmse' or 'error', got {self.second_metric_name!r}."
            )
        if n and not 0 <= self.best < n:
            raise DataError(f"best: expected a row, 0 to {n - 1}, got {self.best}.")

    @property
    def temperature(self) -> float:
        """Of the best pair."""
        return float(self.temperatures[self.best])

    @property
    def prior_scale(self) -> float:
        """Of the best pair."""
        return float(self.prior_scales[self.best])

    def to_pandas(self) -> Any:
        """One row per pair: temperature, prior_scale, nll, and the optional columns."""
        import pandas as pd

        return pd.DataFrame({n: v.detach().cpu().numpy() for n, v in self._columns().items()})

    def _columns(self) -> dict[str, Tensor]:
        columns: dict[str, Tensor | None] = {
            "temperature": self.temperatures,
            "prior_scale": self.prior_scales,
            "nll": self.nll,
            "nll_se": self.nll_se,
            self.second_metric_name: self.second_metric,
        }
        return {name: values for name, values in columns.items() if values is not None}
