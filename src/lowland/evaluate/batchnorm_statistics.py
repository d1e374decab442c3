"""Checks that BatchNorm statistics and frozen parameters belong to the evaluated weights."""

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
    """Raises `ConfigError` for frozen statistics of a shape between networks that have their own.

    No average of the statistics of two networks fits the weights between them.
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
    """The points; raises `DataError` for statistics that do not come from a training set.

    These are frozen statistics that were never estimated, and statistics of the same examples that
    are predicted, as where a server makes a surface of a request.
    """
    first = next(iter(points), None)
    if first is None:
        return points
    if isinstance(points, Iterator):
        points = itertools.chain((first,), points)
    point = first if isinstance(first, Point) else Point(first)
    if options.batchnorm == "frozen":
        surface.statistics.require_estimated({**surface.buffers, **(point.buffers or {})})
    elif surface.refreshes(point, options) and _same_examples(surface, loader):
        raise DataError(
            "the BatchNorm statistics would come from the examples that are being predicted. Make "
            "the surface of the training examples, or name others by bn_loader=. To predict the "
            "training examples themselves, leave loader= out. Where there are none, as on a "
            "server: save posterior.freeze(surface), and make the surface without a loader."
        )
    return points


def _same_examples(surface: LossSurface, loader: Iterable[Any] | None) -> bool:
    """Whether a loader has the examples of the statistics, where no `bn_loader` was passed: the
    same loader, lists that begin with the same tensor, or a copy of one batch. No loader is read.
    """
    has_bn_loader = surface.statistics.source is not None or not surface.template.layers
    if loader is None or not surface.has_data or has_bn_loader:
        return False
    own = surface.data.loader
    if loader is own:
        return True
    if not (isinstance(loader, list | tuple) and isinstance(own, list | tuple)):
        return False
    inputs, own_inputs = _first_input(surface, loader), _first_input(surface, own)
    if inputs is None or own_inputs is None or inputs.shape != own_inputs.shape:
        return False
    if inputs.data_ptr() == own_inputs.data_ptr():
        return True
    # a request is one batch; several equal batches are the training examples, read again
    return len(loader) == len(own) == 1 and torch.equal(inputs, own_inputs.to(inputs))


def _first_input(surface: LossSurface, batches: Sequence[Any]) -> Tensor | None:
    parts = (surface.task.parts(batch)[:2] for batch in batches[:1])
    return next((tensor for inputs in parts for tensor in tensors(inputs)), None)


def warn_about_frozen_parameters(surface: LossSurface, posterior: Posterior) -> None:
    """Warns where the networks of a posterior have other frozen parameters than the surface."""
    if not posterior.frozen:
        return
    state = surface.state
    names = state.keys() - surface.buffers.keys()
    frozen = {n: sample for n, sample in posterior.frozen.items() if n in names}
    other = [n for n, sample in frozen.items() if sample_of(state[n]) != sample]
    if other:
        warn(
            "frozen parameters of the averaged networks are not the surface's: "
            f"{join_names(other)}. Weights hold trainable parameters alone, so that the surface's "
            "are used; make the surface of the model after its frozen parameters were loaded.",
        )
