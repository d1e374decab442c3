"""The expansion of a network around a weight average: why SWA predicts as an ensemble does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.averaging.members import stored_members
from lowland.core import LossSurface, Point, Task
from lowland.core.call import check_batch
from lowland.core.inner import inner
from lowland.core.options import EvalKeywords
from lowland.core.threads import using_threads
from lowland.curvature.derivatives import differentiable_operators
from lowland.evaluate.batchnorm_statistics import require_training_statistics
from lowland.evaluate.nll import resolve_task
from lowland.evaluate.rebatch import slices
from lowland.landscape.similarity import weight_vectors
from lowland.progress import Progress, reporting
from lowland.records import LinearizationResult
from lowland.records.linearization import TERMS
from lowland.trajectory import SWA
from lowland.trajectory.moments import Moments

# examples at a time: a second derivative holds four tensors for each activation
_EXAMPLES = 256


def linearization(
    surface: LossSurface,
    members: Any,
    *,
    loader: Iterable[Any] | None = None,
    average: Any = None,
    scales: Sequence[float] = (),
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> LinearizationResult:
    r"""Compares an ensemble's prediction with that of its weight average, and the terms between
    them.

    \[f(w_i) = f(w) + \nabla f(w) \Delta_i + \tfrac12 \Delta_i^T \nabla^2 f(w) \Delta_i + \ldots,
    \qquad \Delta_i = w_i - w\]

    The first-order terms of members \(w_i\) cancel in their mean, where w is their average: the
    ensemble, \(\tfrac1n \sum_i f(w_i)\), then differs from \(f(w)\) by second order, while two
    members differ by first order (Izmailov et al. 2018, section 3.5). f are the network's outputs,
    such as logits. The comparison of predictions is that of probabilities, or of the means of a
    regression, in the units of the network.

    For a smooth f the ensemble's difference falls with the square of the scale. A network with
    ReLUs has kinks, which the expansion does not contain. In float32 rounding hides small
    differences: for slopes, take a model and data in float64.

    Args:
        members: iterates of FGE or SGD: (n, P), an `Ensemble`, a `Trajectory`, an iterable of (P,)
            or of `Point`s, a dict of these by name, or checkpoint files, a glob pattern or a
            folder of them.
        loader: examples to predict, targets not required. None: the surface's own.
        average: w: (P,), a `Point`, `SWA` or `EMA`. None: the mean of the members.
        scales: further numbers s in (0, 1), at which predictions of the members
            \(w + s \Delta_i\) are compared, too.
        progress, options: as for `predict`. BatchNorm statistics are those of the average for all
            members, since an expansion is of one function of the weights: "refresh" estimates them
            for the average, "frozen" takes those that it comes with. Members are evaluated one by
            one, whatever the strategy.

    Raises:
        ConfigError: fewer than two members, a scale outside (0, 1), a model with an operator that
            has no forward derivative. LayoutError: weights of another model.
            NonFiniteError: NaN or infinite weights.

    >>> from lowland.core import Regression
    >>> data = [(torch.tensor([[2.0]]), torch.zeros(1, 1))]
    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))  # a b x
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), data)
    >>> members = torch.tensor([[1.0, 3.0], [3.0, 1.0]])
    >>> print(linearization(surface, members))
    member       distance  difference  first_order  second_order  remainder
    0              1.4142      2.0000       0.0000        2.0000     0.0000
    1              1.4142      2.0000       0.0000        2.0000     0.0000
    mean output       nan      2.0000       0.0000        2.0000     0.0000
    <BLANKLINE>
    The ensemble's prediction differs from the average's by 2; those of consecutive members ...
    """
    eval_options = surface.options.override(**options)
    names = list(map(str, members)) if isinstance(members, Mapping) else None
    points = weight_vectors(surface, stored_members(surface, members))
    center = _average(surface, average, points)
    require_training_statistics([center], surface, loader, eval_options)
    center = Point(center.weights, surface.buffers_for(center, eval_options))
    weights = [point.weights if isinstance(point, Point) else point for point in points]
    steps = torch.tensor(_scales(scales), dtype=torch.float64)
    data = surface.replayable(loader, count=eval_options.count)
    parts = []
    with (
        torch.no_grad(),
        using_threads(eval_options.threads or torch.get_num_threads()),
        reporting(progress, "linearization") as report,
    ):
        for batch in data:
            parts += [
                _compare(surface, center, part, weights, steps.tolist())
                for part in slices(batch, _EXAMPLES)
            ]
            report(len(parts), None)
    columns = {name: torch.cat([part[name] for part in parts], -1).cpu() for name in parts[0]}
    moves = (_move(center, w) for w in weights)
    return LinearizationResult(
        torch.stack([inner(move, move).sqrt() for move in moves]).cpu(),
        {name: columns[name] for name in TERMS},
        {name: columns[f"mean_{name}"] for name in TERMS},
        steps,
        columns["ensemble"],
        columns["consecutive"],
        names,
        eval_options.batchnorm if surface.has_batchnorm else "none",
    )


def _average(surface: LossSurface, average: Any, members: Iterable[Point | Tensor]) -> Point:
    """The point to expand around, with its buffers if it has any."""
    if average is None:
        average = SWA(surface.layout)
        for member in members:
            average.update(member)
    return surface.point(average.point if isinstance(average, Moments) else average)


def _scales(scales: Sequence[float]) -> list[float]:
    """1, and the further scales in falling order."""
    further = set(checks.numbers("scales", scales, above=0, below=1))
    return [1.0, *sorted(further, reverse=True)]


def _move(center: Point, member: Tensor) -> Tensor:
    return member.to(center.weights) - center.weights


class _Norms:
    """Norms of tensors (B, ...) that are added one by one, and of their mean."""

    def __init__(self) -> None:
        self.each: list[Tensor] = []  # (B,)
        self._sum: Any = 0.0

    def add(self, values: Tensor) -> None:
        values = values.double()
        self.each.append(_norm(values))
        self._sum = self._sum + values

    def of_mean(self) -> Tensor:  # (B,)
        return _norm(self._sum / len(self.each))


def _norm(values: Tensor) -> Tensor:  # (B, ...) -> (B,)
    norm: Tensor = torch.linalg.vector_norm(values[:, None].flatten(1), dim=1)
    return norm


class _Predictions:
    """The members' predictions at a scale, compared with the average's and with one another."""

    def __init__(self, of_average: Tensor) -> None:
        self.of_average = of_average
        self.previous: Tensor | None = None
        self.deviations, self.changes = _Norms(), _Norms()

    def add(self, prediction: Tensor) -> None:
        self.deviations.add(prediction - self.of_average)
        if self.previous is not None:
            self.changes.add(prediction - self.previous)
        self.previous = prediction


def _compare(
    surface: LossSurface, center: Point, batch: Any, members: Sequence[Tensor], scales: list[float]
) -> dict[str, Tensor]:
    """The norms of a batch, by the names of the record's fields: (..., B) each."""
    args, kwargs, target = batch
    surface.template.require_replayable(args, kwargs)
    buffers = center.buffers or {}

    def network(w: Tensor) -> Tensor:
        parameters = surface.layout.materialise(w)
        vectors = surface.template.spectral_vectors(parameters, buffers, differentiable=True)
        return surface.forward(parameters, {**buffers, **vectors}, args, kwargs)

    w = center.weights
    output = network(w)
    check_batch(surface.task, (args, kwargs), output, target)
    task = resolve_task(surface.task, output[None], target, surface.example)
    prediction = _prediction(task, output, target)
    terms = {name: _Norms() for name in TERMS}
    predictions = [_Predictions(prediction) for _ in scales]
    for member in members:
        move = _move(center, member)
        at_scales = [network(w + scale * move) for scale in scales]
        for of_scale, one in zip(predictions, at_scales, strict=True):
            of_scale.add(_prediction(task, one, target))
        first, second = _derivatives(network, w, move, surface.template.module)
        difference = at_scales[0] - output
        remainder = difference - first - second
        for name, values in zip(TERMS, (difference, first, second, remainder), strict=True):
            terms[name].add(values)
    return {
        **{name: torch.stack(norms.each) for name, norms in terms.items()},
        **{f"mean_{name}": norms.of_mean() for name, norms in terms.items()},
        "ensemble": torch.stack([one.deviations.of_mean() for one in predictions]),
        "consecutive": torch.stack([torch.stack(p.changes.each).mean(0) for p in predictions]),
    }


def _prediction(task: Task, output: Tensor, target: Any) -> Tensor:  # (M, ...)
    """Probabilities or means; outputs where the task has neither. Items that do not count are left
    out, where there is a row for each."""
    statistics = task.statistics(output)
    prediction = statistics.get("probs", statistics.get("mean", output))
    mask = None if target is None else task.valid(target)
    return prediction[mask] if mask is not None and len(mask) == len(prediction) else prediction


def _derivatives(
    network: Callable[[Tensor], Tensor], w: Tensor, move: Tensor, module: nn.Module
) -> tuple[Tensor, Tensor]:
    r"""\(\nabla f \Delta\) and \(\tfrac12 \Delta^T \nabla^2 f \Delta\), by forward mode twice: no
    graph is held."""

    def jvp(function: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
        value, tangent, *_ = torch.func.jvp(function, (at,), (move,))
        return value, tangent

    def slope(at: Tensor) -> Tensor:
        return jvp(network, at)[1]

    with differentiable_operators(module, derivative="forward derivative"):
        first, twice_second = jvp(slope, w)
    return first.detach(), twice_second.detach() / 2
