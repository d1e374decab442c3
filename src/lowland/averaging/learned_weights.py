"""Mixing weights on the simplex, learned from the validation NLL of the average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowland.averaging.validation import Validation
from lowland.averaging.weighted_mean import weighted_mean
from lowland.core import Point
from lowland.core.data import ReplayableLoader
from lowland.core.inner import inner


def learned_weights(
    validation: Validation,
    members: Sequence[Point],
    half: ReplayableLoader | None = None,
    *,
    start: Tensor | None = None,
    steps: int = 30,
) -> Tensor:
    r"""The mixing weights \(c = \mathrm{softmax}(\theta)\) with the lowest NLL of
    \(\sum_m c_m w_m\), (M,) float64.

    L-BFGS over all examples at once. The gradient flows through the average's weights:
    \(\partial L / \partial c_m = \langle w_m, \nabla L \rangle\). Members are read twice for every
    gradient, and never held together.

    Args:
        half: the examples to learn from; None: all validation examples.
        start: (M,), positive weights to start at; None: equal ones.
        steps: of L-BFGS.
    """
    start = torch.ones(len(members)) if start is None else start
    logits = start.double().log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=steps,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    lowest = torch.inf
    best = torch.softmax(logits.detach(), 0)

    def closure() -> float:
        nonlocal lowest, best
        weights = torch.softmax(logits.detach(), 0)
        loss, gradient = validation.value_and_grad(weighted_mean(members, weights), half)
        slopes = torch.stack([inner(member.weights, gradient).cpu() for member in members])
        logits.grad = weights * (slopes - (weights * slopes).sum())
        if float(loss) < lowest:
            lowest, best = float(loss), weights
        return float(loss)

    if len(members) > 1:
        optimizer.step(closure)
    return best


def held_out_nlls(
    validation: Validation,
    members: Sequence[Point],
    *,
    start: Tensor | None = None,
    steps: int = 30,
) -> Tensor:
    """The NLL of each item, (items,), of the average with weights learned from the other half."""
    points = (
        weighted_mean(members, learned_weights(validation, members, half, start=start, steps=steps))
        for half in validation.halves()
    )
    return validation.cross_fitted([validation.nlls(point) for point in points])
