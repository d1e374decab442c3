"""The loss barrier between two minima."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from torch import Tensor

from lowland import checks
from lowland.core import LossSurface, Point
from lowland.core.options import EvalKeywords
from lowland.geometry import Line
from lowland.landscape.path import path
from lowland.progress import Progress
from lowland.records import BarrierResult


def barrier(
    surface: LossSurface,
    w0: Tensor | Point,
    w1: Tensor | Point,
    *,
    points: int = 25,
    loader: Iterable[Any] | None = None,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> BarrierResult:
    r"""\(\max_t\, L((1-t) w_0 + t w_1) - [(1-t) L(w_0) + t L(w_1)]\) (Frankle et al. 2020).

    The maximum, among `points` evenly on the straight line, of the loss above the straight
    interpolation of the ends' losses. Along a curve: `path(curve, surface).barrier`.

    Args:
        w0, w1: two minima. points: their number, ends included.
        loader: further examples, such as the test set, for `test_height`.
        progress, options: as for `path`.

    Raises:
        ConfigError: ends that are equal, fewer than three points, frozen statistics of ends that
            have their own. LayoutError: weights of another model. NonFiniteError: not one finite
            loss.

    >>> import torch
    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> surface = LossSurface(nn.Linear(1, 1, bias=False), Regression(noise_variance=1.0), data)
    >>> float(barrier(surface, torch.tensor([-1.0]), torch.tensor([1.0])))  # of a bowl
    0.0
    """
    points = checks.whole("points", points, least=3)  # the ends and one between
    line = Line(w0, w1)
    result = path(line, surface, points=points, loader=loader, progress=progress, **options)
    return BarrierResult(
        result.t,
        result.loss,
        result.error,
        distance=float(result.distance[-1]),
        test_loss=result.test_loss,
        test_error=result.test_error,
        batchnorm=result.batchnorm,
        examples=result.examples,
    )
