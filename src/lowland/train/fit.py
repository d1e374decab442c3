"""The expected loss over a shape, minimised by SGD over its free anchors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lowland import checks
from lowland.artifacts import Checkpoint
from lowland.core import LossSurface
from lowland.errors import ConfigError
from lowland.files import PathLike
from lowland.geometry import Barycentric, Curve, Shape
from lowland.progress import Progress
from lowland.train.along import Along, Anchors
from lowland.train.batches import length, without_last
from lowland.train.options import Options
from lowland.trajectory import DecaySchedule

S = TypeVar("S", bound=Shape)
MEASURES = ("coords", "arc")


def fit(
    shape: S,
    surface: LossSurface,
    *,
    epochs: int,
    loader: Iterable[Any] | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
    weight_decay: float = 0.0,
    log_volume: float = 0.0,
    samples: int = 1,
    measure: str = "coords",
    strategy: str | None = None,
    compile: bool = False,
    accumulate: int = 1,
    clip: float | None = None,
    drop_last: bool = False,
    validate: Callable[[S], Mapping[str, float]] | None = None,
    seed: int = 0,
    checkpoint: Checkpoint | PathLike | None = None,
    checkpoint_steps: int | None = None,
    progress: Progress = False,
) -> S:
    r"""Minimises \(E_t [L(w(t)) + \tfrac{\lambda}{2} |w(t)|^2]\) over a shape's free anchors.

    t follows the shape's own distribution (for curves uniform in [0, 1]: Garipov et al. 2018,
    equation 4), stratified over steps. A step is a forward and a backward pass of the plain model
    at w(t), in training mode, as one of `sgd` is, and a few sums of weight vectors.

    With `log_volume=` it is \(E_t [\cdot] - \lambda_V \log V\) (Benton et al. 2021, equation 5): a
    simplex or complex that is as large as the loss lets it be. A complex's simplexes are drawn in
    proportion to their volumes, whose change with the vertices is part of the gradient.

    Args:
        shape: with free anchors, such as `Bezier.between(w0, w1)`; it is left as it was.
        surface: the loss; its device, autocast and channels_last are those of the fit.
        loader: training batches, such as `Batches` in a new order each epoch, with augmentation;
            None: the surface's own, as they come.
        epochs: passes over them.
        optimizer: made from the free anchors, a parameter (P,) each; None: SGD, learning rate
            0.05, momentum 0.9, with the schedule of `DecaySchedule` where none is given. For SAM
            and LBFGS see `sgd`; they evaluate the loss again at the same t.
        schedule: made from the optimizer, and stepped once a step.
        weight_decay: λ, on the weights w(t) and not on the anchors.
        log_volume: λ_V, for simplexes and complexes; `spro` has the paper's rule for it. The log
            of the fit then has the column "log_volume".
        samples: t a step; their gradients are averaged. The paper takes 5 on a simplex.
        measure: "coords"; or "arc", for curves: L(w(t)) uniform in length along the curve, with
            its gradient through |w'(t)| and the length, which the paper leaves out as intractable:
            they are functions of the anchors' inner products alone.
        strategy: for samples > 1: "accumulate" them one by one, "vmap" them together, which is
            faster for small networks; None: what is faster on the first batch, so that two runs
            may differ in their last bits.
        compile: the model by `torch.compile`.
        accumulate, clip, drop_last, seed, checkpoint, checkpoint_steps, progress: as in `sgd`.
        validate: gives figures of the shape as it is after each epoch, for the log.

    Returns:
        A fitted copy, whose `log` is the `TrainingLog`; anchors that are not free stay bit-equal.

    Raises:
        ConfigError: no free anchor, a measure or a volume that the shape lacks, a checkpoint of
            other settings. LayoutError: a shape through weights of another model.
            NonFiniteError, DataError: see `sgd`.

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
    options = Options(
        epochs,
        optimizer=optimizer,
        schedule=schedule,
        validate=_figures(shape, validate),
        autocast=surface.template.autocast,
        channels_last=surface.channels_last,
        accumulate=accumulate,
        clip=clip,
        seed=seed,
        checkpoint=checkpoint,
        checkpoint_steps=checkpoint_steps,
    )
    samples = checks.whole("samples", samples, least=1)
    weight_decay = checks.number("weight_decay", weight_decay, least=0)
    log_volume = checks.number("log_volume", log_volume, least=0)
    if not any(shape.free):
        raise ConfigError(
            f"{shape!r} has no free anchor to fit; make a curve with bends, such as "
            "ll.Bezier.between(w0, w1), or let a simplex grow()."
        )
    if measure not in MEASURES:
        raise ConfigError(f"measure: expected one of {', '.join(MEASURES)}, got {measure!r}.")
    if measure == "arc" and not isinstance(shape, Curve):
        raise ConfigError(f"measure: 'arc' is for curves, and {shape!r} has no length.")
    if log_volume and not (isinstance(shape, Barycentric) and any(c[1:] for c in shape.cells)):
        raise ConfigError(
            f"log_volume: {shape!r} has no volume; give a simplex of two vertices or more, or a "
            "complex of them."
        )
    if strategy not in (None, "accumulate", "vmap"):
        raise ConfigError(f"strategy: expected 'accumulate' or 'vmap', got {strategy!r}.")
    if surface.template.autocast is torch.float16:
        raise ConfigError(
            "autocast: float16 needs its losses scaled, which fit does not do; use bfloat16."
        )
    surface.layout.check(shape.anchors)
    data = _loader_of(surface) if loader is None else loader
    if drop_last:
        data = without_last(data, surface.task)
    if schedule is None and optimizer is None:
        batches = length(data)
        if batches is None:
            raise ConfigError(
                "loader: the default schedule needs its length, which it has not (nor has one "
                "with count=); give schedule= or optimizer=, or a loader= with a __len__."
            )
        if batches:
            total = -(-batches // options.accumulate) * options.epochs
            options = replace(options, schedule=lambda made: DecaySchedule(made, total=total))
    anchors = shape.anchors.to(surface.device, surface.layout.dtype)
    run = Along(
        shape.with_anchors(anchors),
        surface,
        data,
        options,
        measure=measure,
        samples=samples,
        strategy=strategy,
        weight_decay=weight_decay,
        log_volume=log_volume,
        compile=compile,
    )
    run.to_the_end(progress)
    moved = shape.anchors.clone()  # what is fixed stays as it was given, whatever its dtype
    for i in run.model.which:
        moved[i] = run.model.matrix[i]
    made = shape.with_anchors(moved)
    made.buffers = run.buffers()
    made.log = run.log()
    return made


def _figures(
    shape: Shape, validate: Callable[[Any], Mapping[str, float]] | None
) -> Callable[[Anchors], Mapping[str, float]] | None:
    """Figures after an epoch: the user's, and the volume of what has one."""
    has = isinstance(shape, Barycentric) and len(shape.anchors) > 1
    if validate is None and not has:
        return None

    def figures(anchors: Anchors) -> Mapping[str, float]:
        now = anchors.shape_now()
        found = dict(validate(now)) if validate else {}
        return ({"log_volume": float(now.log_volume())} if has else {}) | found

    return figures


def _loader_of(surface: LossSurface) -> Iterable[Any]:
    data = surface.data
    return data.loader if data.count is None else data
