"""The error on the most confident examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lowland.errors import DataError
from lowland.plots.labels import Label, end_labels
from lowland.plots.style import by_label, canvas, colour, dashes, numbers
from lowland.records import RiskCoverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 500  # of a curve, at most
LEAST = 20  # examples: the error on fewer is noisy


def risk_coverage(
    record: RiskCoverage | Mapping[str, RiskCoverage], *, ax: Axes | None = None
) -> Axes:
    """Draws the error on the most confident examples against their share.

    Both are fractions; at coverage 1 it is the error on all examples. A dict of records has one
    line each, whose labels have the mean over coverages, the AURC. The first 20 examples, or a
    twentieth, are omitted: they are noisy.

    >>> import torch
    >>> record = RiskCoverage(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.5]))
    >>> risk_coverage({"SGD": record}).texts[0].get_text()
    'SGD, AURC 0.2500'
    """
    records = by_label(record)
    with canvas(ax, size=(7.6, max(4.0, 2.0 + 0.25 * len(records)))) as ax:
        labels = []
        for i, (name, result) in enumerate(records.items()):
            coverage, risk = numbers(result.coverage), numbers(result.risk)
            if not len(risk):
                raise DataError(
                    "the record has no examples; select from a prediction that has some."
                )
            first = min(LEAST, len(risk) // 20)
            selected = np.unique(np.linspace(first, len(risk) - 1, POINTS).astype(int))
            x, y = coverage[selected], risk[selected]
            marker = "o" if len(selected) == 1 else None
            ax.plot(x, y, dashes(i), color=colour(i), linewidth=2, marker=marker, label=name)
            text = f"{name}, AURC {result.aurc:.4f}".removeprefix(", ")
            labels.append(Label(float(x[-1]), float(y[-1]), text, colour(i)))
        ax.set_xlim(0, 1)
        ax.set_ylim(bottom=0)
        ax.set(
            xlabel="coverage (most confident examples, fraction)",
            ylabel="error on these examples (fraction)",
        )
        end_labels(ax, labels)
    return ax
