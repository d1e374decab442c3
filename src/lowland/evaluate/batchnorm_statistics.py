"""Whether the statistics and the frozen parameters that points are evaluated with are theirs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lowland.core import EvalOptions, LossSurface, Point
from lowland.core.buffers import sample_of
from lowland.core.data import tensors
from lowland.core.names import join_names
from lowland.errors import ConfigError, DataError
from lowland.geometry import Shape
from lowland.posteriors import Posterior
from lowland.warn import warn


def require_statistics(shape: Shape, surface: LossSurface, options: EvalOptions) -> None:
    """Raises `ConfigError` where frozen statistics would be others than a user may think.

    Between the statistics of two networks there are none that would fit the weights between them.
    """
    if options.batchnorm != "frozen" or not shape.buffers:
        return
    names = {*surface.template.statistics, *surface.statistics.names}
    if names & shape.buffers.keys():
        raise ConfigError(
            "batchnorm: 'frozen' has no statistics for points between the networks that the "
            f"{type(shape).__name__} was made of; take 'refresh', or make the surface of a model "
            "that has the statistics you mean, and the shape of weights alone (point.weights)."
        )


def require_training_statistics(
    points: Iterable[Point | Tensor],
    surface: LossSurface,
    loader: Iterable[Any] | None,
    options: EvalOptions,
) -> Iterable[Point | Tensor]:
    """The points; raises `DataError` where predictions would be those of statistics that are none
    of a training set.

    That is frozen statistics that were never estimated, and statistics from the very examples that
    are to be predicted, as where a server makes a surface of a request.
    """
    first = next(iter(points), None)
    if first is None:
        return points
    if isinstance(points, Iterator):
        points = itertools.chain((first,), points)
    point = first if isinstance(first, Point) else Point(first)
    if options.batchnorm == "frozen":
        surface.require_estimated(point)
    elif surface.refreshes(point, options) and _same_examples(surface, loader):
        raise DataError(
            "the BatchNorm statistics would come from the examples that are being predicted. Make "
            "the surface of the training examples, or name others by bn_loader=. To predict the "
            "training examples themselves, leave loader= out. Where there are none, as on a "
            "server: save posterior.freeze(surface), and make the surface without a loader."
        )
    return points


def _same_examples(surface: LossSurface, loader: Iterable[Any] | None) -> bool:
    """Whether a loader gives the examples that statistics come from, which nobody named: the same
    loader, lists that begin with the same tensor, or a copy of one batch. No loader is read."""
    named = surface.statistics.source is not None or not surface.template.layers
    if loader is None or not surface.has_data or named:
        return False
    ours = surface.data.loader
    if loader is ours:
        return True
    if not (isinstance(loader, list | tuple) and isinstance(ours, list | tuple)):
        return False
    mine, theirs = _first_input(surface, loader), _first_input(surface, ours)
    if mine is None or theirs is None or mine.shape != theirs.shape:
        return False
    if mine.data_ptr() == theirs.data_ptr():
        return True
    # a request is one batch; several that are equal are the training examples, read once more
    return len(loader) == len(ours) == 1 and torch.equal(mine, theirs.to(mine))


def _first_input(surface: LossSurface, batches: Sequence[Any]) -> Tensor | None:
    inputs = (surface.task.parts(batch)[:2] for batch in batches[:1])
    return next((t for one in inputs for t in tensors(one)), None)


def warn_of_frozen(surface: LossSurface, posterior: Posterior) -> None:
    """Warns where a posterior is of networks whose frozen parameters are not the surface's."""
    if not posterior.frozen:
        return
    ours = surface.state
    names = ours.keys() - surface.buffers.keys()
    frozen = {n: sample for n, sample in posterior.frozen.items() if n in names}
    other = [n for n, sample in frozen.items() if sample_of(ours[n]) != sample]
    if other:
        warn(
            "frozen parameters of the averaged networks are not the surface's: "
            f"{join_names(other)}. Weights hold trainable parameters alone, so that the surface's "
            "are used; make the surface of the model after its frozen parameters were loaded.",
        )
