"""Operators of torch that have derivatives of second order, in place of fused ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lowland.errors import ConfigError

#: words of torch's errors about operators without a derivative
_REASONS = ("forward AD", "functorch", "jvp", "once_differentiable", "is not implemented")


class PlainWeightNorm(TorchFunctionMode):
    """weight_norm by differentiable parts: the second derivative of torch's fused operator leaves
    out that of the norm (torch 2.13), and is wrong without a word.

    Attributes:
        used: whether there was any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.used = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._weight_norm:
            self.used = True
            v, g, dim = args
            return v * (g / torch.norm_except_dim(v, 2, dim))
        return func(*args, **(kwargs or {}))


@contextmanager
def differentiable_operators(
    module: nn.Module, *, derivative: str, weight_norm: bool = True
) -> Iterator[PlainWeightNorm]:
    """Attention and weight_norm by operators that have second and forward derivatives.

    Args:
        derivative: what is computed, for the message, such as "second derivative".
        weight_norm: whether the module has any: to look takes a small network a third of its time.

    Raises:
        ConfigError: for an operator that has none.

    >>> with differentiable_operators(nn.Linear(1, 1), derivative="second derivative"):
    ...     raise RuntimeError("derivative for aten::exotic is not implemented")
    Traceback (most recent call last):
    lowland.errors.ConfigError: Linear has no second derivative (derivative for aten::exotic ...
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    mode = PlainWeightNorm()
    try:
        with (
            torch.enable_grad(),
            sdpa_kernel(SDPBackend.MATH),
            mode if weight_norm else nullcontext(),
        ):
            yield mode
    except RuntimeError as error:  # NotImplementedError among them
        if not lacks_derivative(error):
            raise
        raise ConfigError(
            f"{type(module).__name__} has no {derivative} ({str(error)[:200]}...); write this part "
            "of the forward pass in plain torch operations."
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def require_second_derivative(gradient: Tensor) -> None:
    """Raises `RuntimeError` for a gradient, with its graph, of a function that can be
    differentiated once: `torch.autograd.grad` passes over it, and the second derivative by the
    weights would lack what goes through it, without a word.

    >>> x = torch.ones(1, requires_grad=True)
    >>> (gradient,) = torch.autograd.grad(x**3, x, create_graph=True)
    >>> require_second_derivative(gradient)
    """
    waiting = [gradient.grad_fn]
    visited = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if node.name() == "torch::autograd::Error":  # what once_differentiable leaves in the graph
            raise RuntimeError("a function of its own is marked as once_differentiable")
        following = {other for other, _ in node.next_functions} - visited
        visited |= following
        waiting.extend(following)


def lacks_derivative(error: RuntimeError) -> bool:
    """Whether an error of torch is about an operator without the derivative that is needed.

    >>> lacks_derivative(RuntimeError("Trying to use forward AD with exotic"))
    True
    """
    return any(reason in str(error) for reason in _REASONS)
