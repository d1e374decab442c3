"""The components of a regression's predictive mixture, one Gaussian for each draw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland.core import LossSurface, Regression
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.weights import iter_weights


def components(
    surface: LossSurface,
    post: Any,
    loader: Iterable[Any] | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    **options: Unpack[EvalKeywords],
) -> tuple[Tensor, Tensor]:
    """Means and variances, (S, N, D) each, of the mixture whose moments `predict` returns, in the
    target's own units: the arguments of `crps`. All are held: for some thousand examples.

    Args:
        post, loader, samples, seed, options: as for `predict`.

    Raises:
        ConfigError: another task than `Regression`.

    >>> from torch import nn
    >>> data = [(torch.ones(2, 1), torch.zeros(2, 1))]
    >>> surface = LossSurface(nn.Linear(1, 1, bias=False), Regression(noise_variance=4.0), data)
    >>> means, variances = components(surface, torch.tensor([[1.0], [2.0], [3.0]]))
    >>> means[:, 0, 0], variances.shape
    (tensor([1., 2., 3.], dtype=torch.float64), torch.Size([3, 2, 1]))
    """
    if not isinstance(surface.task, Regression):
        raise ConfigError(f"components: expected a Regression, got {surface.task!r}.")
    points, total = iter_weights(surface, post, samples, seed)
    sink = _Moments(surface.task)
    evaluation = Evaluation(
        surface, [(loader, sink)], surface.options.override(**options), total=total
    )
    evaluation.run(points, label="components")
    return sink.moments()


class _Moments:
    """A `Sink` that holds the means and variances of each point."""

    holds_examples = True

    def __init__(self, task: Regression) -> None:
        self.task = task
        self._batches: list[tuple[Tensor, Tensor]] = []  # of this chunk, (n, B, D) each
        self._chunks: list[tuple[Tensor, Tensor]] = []  # by chunk, (n, N, D) each

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        mean, variance = torch.stack(
            [torch.stack(self.task.moments(output)) for output in outputs], 1
        ).double()
        shift, std = self.task.units(mean[0])
        self._batches.append((mean * std + shift, variance * std**2))

    def end(self, first: int, n: int) -> None:
        self._chunks.append(_cat(self._batches, 1))
        self._batches = []

    def moments(self) -> tuple[Tensor, Tensor]:
        mean, variance = _cat(self._chunks, 0)
        return mean.cpu(), variance.cpu()


def _cat(parts: list[tuple[Tensor, Tensor]], dim: int) -> tuple[Tensor, Tensor]:
    means, variances = zip(*parts, strict=True)
    return torch.cat(means, dim), torch.cat(variances, dim)
