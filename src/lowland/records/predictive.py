"""A model average over a loader."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lowland.records.base import Record

_TASKS = {
    "classification": "Classification",
    "regression": "Regression",
    "language": "LanguageModeling",
}


def default_target_axis(ndim: int) -> int:
    """Where the D targets of a regression lie: last in sequences (N, T, D), else on axis 1."""
    return 2 if ndim == 3 else 1


@dataclass(frozen=True, eq=False)
class Predictive(Record):
    """A model average over a loader: N examples, C classes or D targets.

    Fields that do not apply, or that `keep=` left out, are None.

    Attributes:
        probs: (N, C, ...), the mean of probabilities over samples.
        log_probs: its logarithm, where float32 does not hold a probability well enough to take it:
            where one is below 1e-30, and of independent labels (N, 2, C), of no and yes.
        mean, variance: (N, D), or the shape of targets of sequences and images, of the predictive
            mixture, in the target's own units; `variance` is total: mean of variances plus variance
            of means.
        entropy, mutual_information: (N, ...), in nats: of the average, and what of it comes from
            disagreement between samples.
        targets: the loader's, where it has them, in their own units.
        target_log_prob: (items,), log of the mean likelihood over samples.
        nll_by_samples: (S,), the NLL of the average of the first s samples.
        error_by_samples: (S,), its error, a fraction, of a classifier; None in older files.
        metric_values: what `metrics()` returns.
        task: the likelihood, as `Task.to_dict` gives it: which items count, what labels mean. A
            record created directly has the default task of its `kind`.
    """

    figure = "predictive"
    kind: str
    samples: int
    probs: Tensor | None = None
    mean: Tensor | None = None
    variance: Tensor | None = None
    entropy: Tensor | None = None
    mutual_information: Tensor | None = None
    targets: Tensor | None = None
    target_log_prob: Tensor | None = None
    nll_by_samples: Tensor | None = None
    reliability: dict[str, Tensor] | None = None
    metric_values: dict[str, float] = field(default_factory=dict)
    error_by_samples: Tensor | None = None
    task: dict[str, Any] | None = None
    log_probs: Tensor | None = None

    def __post_init__(self) -> None:
        if self.task is None and self.kind in _TASKS:
            task = {"name": _TASKS[self.kind], "settings": {}}
            object.__setattr__(self, "task", task)  # frozen

    @property
    def form(self) -> str | None:
        """Of a classifier's labels, as `Classification(form=)`; None where it is not known."""
        form: str | None = ((self.task or {}).get("settings") or {}).get("form")
        return form

    def by_item(self, values: Tensor) -> Tensor:  # (N, ...) -> (items, D)
        """Means, variances or targets of a regression, one row per item.

        >>> import torch
        >>> pred = Predictive("regression", 1, mean=torch.zeros(6, 1, 4, 5))
        >>> pred.by_item(pred.mean).shape
        torch.Size([120, 1])
        """
        axis = ((self.task or {}).get("settings") or {}).get("target_dim")
        if axis is None or values.ndim == 2:
            axis = default_target_axis(values.ndim)
        return values.movedim(axis, -1).reshape(-1, values.shape[axis])

    def metrics(self) -> dict[str, float]:
        """accuracy, nll, ece, brier | rmse, nll, nll_gaussian, coverage; {} without targets."""
        return dict(self.metric_values)
