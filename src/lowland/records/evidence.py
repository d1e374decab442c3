"""The evidence of a subspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lowland.records.base import Record


@dataclass(frozen=True, eq=False)
class Evidence(Record):
    """The logarithm of the integral of likelihood^(1/T) times prior, in nats.

    `error`: its standard error; 0 for quadrature, whose accuracy is in `about`: "moved", the last
    change of moments, "converged" and "spacing".
    `method`: "grid" or "tempering". `evaluations` of the log-likelihood.
    """

    figure = "evidence"
    log_evidence: float
    error: float
    method: str
    evaluations: int
    about: dict[str, Any] = field(default_factory=dict)
