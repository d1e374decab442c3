"""Optimizers that evaluate the loss again within a step, such as SAM and LBFGS."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

Closure = Callable[[], Tensor]


def requires_closure(optimizer: Optimizer) -> bool | None:
    """Whether `step` requires a closure; None: not known before a step.

    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> requires_closure(torch.optim.SGD([weight])), requires_closure(torch.optim.LBFGS([weight]))
    (False, True)
    """
    parameters = inspect.signature(optimizer.step).parameters.values()
    if any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    ):
        return True
    # torch's own evaluate an optional closure once, and so need none
    needs_none = not parameters or type(optimizer).__module__.startswith("torch.optim")
    return False if needs_none else None


def take_step(optimizer: Optimizer, closure: Closure, *, required: bool | None) -> bool:
    """A step of the optimizer, with the closure where it is required; returns whether it is.

    With None the step is tried without; where it fails, the weights are restored first.
    """
    if required is None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in parameters]
        try:
            optimizer.step()
        except Exception as error:
            with torch.no_grad():
                for parameter, value in zip(parameters, before, strict=True):
                    parameter.copy_(value)
            closure()  # the gradient at these weights, which the failed step may have changed
            try:
                optimizer.step(closure)  # type: ignore[arg-type]  # gives a tensor, as is usual
            except Exception:
                raise error from None
            return True
        return False
    if required:
        optimizer.step(closure)  # type: ignore[arg-type]
    else:
        optimizer.step()
    return required
