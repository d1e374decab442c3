"""The expected loss over a shape, minimised by SGD over its free anchors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, Unpack

import torch

from lowland import checks
from lowland.core import LossSurface
from lowland.errors import ConfigError
from lowland.geometry import Barycentric, Shape
from lowland.train.anchors import Anchors
from lowland.train.batches import full_batches, num_batches
from lowland.train.objective import Objective
from lowland.train.options import TrainKeywords, TrainOptions, require_surface_decides
from lowland.train.shape_trainer import ShapeTrainer
from lowland.trajectory import DecaySchedule

S = TypeVar("S", bound=Shape)


def fit(
    shape: S,
    surface: LossSurface,
    *,
    epochs: int,
    loader: Iterable[Any] | None = None,
    weight_decay: float = 0.0,
    log_volume: float = 0.0,
    samples: int = 1,
    measure: str = "coords",
    strategy: str | None = None,
    validate: Callable[[S], Mapping[str, float]] | None = None,
    **options: Unpack[TrainKeywords],
) -> S:
    r"""Minimises \(E_t [L(w(t)) + \tfrac{\lambda}{2} |w(t)|^2]\) over a shape's free anchors.

    t follows the shape's own distribution (for curves uniform in [0, 1]: Garipov et al. 2018,
    equation 4), stratified over steps. A step is a forward and a backward pass of the plain model
    at w(t), in training mode, as one of `sgd` is, and a few sums of weight vectors.

    With `log_volume=` it is \(E_t [\cdot] - \lambda_V \log V\) (Benton et al. 2021, equation 5): a
    simplex or complex as large as the loss allows. A complex's simplexes are drawn in
    proportion to their volumes, whose change with the vertices is part of the gradient.

    Args:
        shape: with free anchors, such as `Bezier.between(w0, w1)`; it is not changed.
        surface: the loss; its device, autocast and channels_last hold for the fit.
        loader: training batches, such as `Batches` in a new order each epoch, with augmentation;
            None: the surface's own, in their order.
        epochs: passes over them.
        weight_decay: λ, on the weights w(t) and not on the anchors.
        log_volume: λ_V, for simplexes and complexes; `spro` has the paper's rule for it. The log
            of the fit then has the column "log_volume".
        samples: t a step; their gradients are averaged. The paper takes 5 on a simplex.
        measure: "coords"; or "arc", for curves: L(w(t)) uniform in length along the curve, with
            its gradient through |w'(t)| and the length, which the paper leaves out as intractable:
            they are functions of the anchors' inner products alone.
        strategy: for samples > 1: "accumulate" them one by one, "vmap" them together, which is
            faster for small networks; None: the faster one on the first batch, so that two
            runs may differ in their last bits.
        validate: returns metrics of the shape after each epoch, for the log.
        options: `TrainOptions`, or keyword arguments with the names of its fields. The optimizer
            is built from the free anchors, a parameter (P,) each; SAM and LBFGS evaluate the loss
            again at the same t.

    Returns:
        A fitted copy, whose `log` is the `TrainingLog`; anchors that are not free stay bit-equal.

    Raises:
        ConfigError: no free anchor, a measure or a volume that the shape lacks, a checkpoint of
            other settings. LayoutError: a shape through weights of another model.
            NonFiniteError, DataError: see `sgd`.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Bezier
    >>> data = [(torch.eye(2), torch.zeros(2, 1))]  # L is the square of |w|, but for constants
    >>> model = nn.Linear(2, 1, bias=False)
    >>> surface = LossSurface(model, Regression(noise_variance=1.0), data)
    >>> ends = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> curve = fit(Bezier.between(*ends), surface, epochs=400)
    >>> bool((curve.anchors[1] + 0.75).abs().max() < 0.05)  # the best bend is (-3/4, -3/4)
    True
    """
    train = TrainOptions().override(**options)
    require_surface_decides(train)
    epochs = checks.whole("epochs", epochs, least=1)
    objective = Objective(weight_decay, log_volume, samples, measure, strategy)
    objective.require_fits(shape)
    if surface.template.autocast is torch.float16:
        raise ConfigError(
            "autocast: float16 needs its losses scaled, which fit does not do; use bfloat16."
        )
    surface.layout.check(shape.anchors)
    data = _surface_loader(surface) if loader is None else loader
    if train.drop_last:
        data, train = full_batches(data, surface.task), replace(train, drop_last=False)
    if train.schedule is None and train.optimizer is None:
        batches = num_batches(data)
        if batches is None:
            raise ConfigError(
                "loader: the default schedule needs its length, which it has not (nor has one "
                "with count=); give schedule= or optimizer=, or a loader= with a __len__."
            )
        if batches:
            total = -(-batches // train.accumulate) * epochs
            train = replace(train, schedule=lambda optimizer: DecaySchedule(optimizer, total=total))
    anchors = shape.anchors.to(surface.device, surface.layout.dtype)
    trainer = ShapeTrainer(
        shape.with_anchors(anchors),
        surface,
        data,
        objective,
        train,
        epochs=epochs,
        validate=_with_log_volume(shape, validate),
    )
    trainer.run()
    anchors = shape.anchors.clone()  # fixed ones stay as they were given, whatever their dtype
    for i in trainer.model.free_indices:
        anchors[i] = trainer.model.matrix[i]
    fitted = shape.with_anchors(anchors)
    fitted.buffers = trainer.shape_buffers()
    fitted.log = trainer.log.record()
    return fitted


def _with_log_volume(
    shape: Shape, validate: Callable[[Any], Mapping[str, float]] | None
) -> Callable[[Anchors], Mapping[str, float]] | None:
    """The user's metrics after an epoch, and the log volume of a shape that has one."""
    has_volume = isinstance(shape, Barycentric) and len(shape.anchors) > 1
    if validate is None and not has_volume:
        return None

    def metrics(anchors: Anchors) -> Mapping[str, float]:
        current = anchors.current_shape()
        own = dict(validate(current)) if validate else {}
        return ({"log_volume": float(current.log_volume())} if has_volume else {}) | own

    return metrics


def _surface_loader(surface: LossSurface) -> Iterable[Any]:
    data = surface.data
    return data.loader if data.count is None else data
