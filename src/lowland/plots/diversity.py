"""Differences between the members of an ensemble, as a matrix of colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowland.errors import ConfigError
from lowland.plots.similarity import matrix
from lowland.plots.style import numbers
from lowland.records import DiversityResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "cosine_mean": "cosine of the weights about their mean",
    "cosine_start": "cosine of the weights about the start",
    "distance": "distance of the weights",
    "disagreement": "predictions that differ (fraction)",
    "kl": "KL divergence, row from column (nats)",
}


def diversity(
    record: DiversityResult, *, ax: Axes | None = None, metric: str | None = None
) -> Axes:
    """Draws a matrix: "kl", "disagreement", "distance", "cosine_mean" or "cosine_start"; without a
    metric the first of these that the record has.

    >>> import torch
    >>> one = torch.ones(2, 2)
    >>> axes = diversity(DiversityResult(["a", "b"], one, None, one, kl=one - torch.eye(2)))
    >>> [text.get_text() for text in axes.texts]
    ['0.00', '1.00', '1.00', '0.00']
    """
    matrices = record.matrices
    metric = metric or next(name for name in reversed(TITLES) if name in matrices)
    if metric not in matrices:
        raise ConfigError(f"metric: expected one of {', '.join(matrices)}, got {metric!r}.")
    return matrix(
        numbers(matrices[metric]),
        record.names,
        label=TITLES[metric],
        is_cosine="cosine" in metric,
        ax=ax,
    )
