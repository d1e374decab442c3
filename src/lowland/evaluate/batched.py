r"""Linear layers of many weight vectors at once.

Under `torch.func.vmap` a linear layer whose weights are mapped over becomes a batched product, a
multiplication by one and two additions, each a pass over the activations. Here it is
\(y^T = W x^T + b\): one product, to which the bias is added in place where no gradient is asked
for, or which it is part of. Its result lies in memory with the rows last, as the next layer's
product wants it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_batchedtensor
from torch.overrides import TorchFunctionMode

from lowland.core import LossSurface
from lowland.core.autograd import mapping


def vmapped(
    surface: LossSurface,
    parameters: dict[str, Tensor],  # {name: (n, ...)}
    buffers: dict[str, Tensor],  # {name: (n, ...)}
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Tensor:
    """Outputs (n, B, ...) of n points at once.

    Raises:
        ConfigError: a model that vmap cannot map over.
    """

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return surface.forward(parameters, buffers, args, kwargs)

    instead = "leave strategy= out, or take 'points'"
    with mapping(surface.template.module, instead=instead), BatchedLinearMode():
        return torch.func.vmap(one)(parameters, buffers)


class BatchedLinearMode(TorchFunctionMode):
    """Computes `F.linear` as `linear` does, whoever calls it, while it is entered.

    >>> x, w = torch.ones(5, 3), torch.ones(4, 2, 3)
    >>> with BatchedLinearMode():
    ...     torch.func.vmap(F.linear, (None, 0))(x, w).shape
    torch.Size([4, 5, 2])
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.linear:
            func = linear
        elif func is Tensor.view and not kwargs and not isinstance(args[1], torch.dtype):
            func = Tensor.reshape  # a view of rows that lie last may not exist
        return func(*args, **(kwargs or {}))


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` for weights that are mapped over: `input` (..., i), `weight` (o, i).

    >>> x, w, b = torch.randn(5, 3), torch.randn(2, 3), torch.randn(2)
    >>> torch.allclose(linear(x, w, b), F.linear(x, w, b), atol=1e-6)
    True
    """
    if weight.ndim != 2 or torch.is_autocast_enabled(input.device.type):
        return F.linear(input, weight, bias)
    if input.ndim != 2:
        return _plus(input @ weight.mT, bias)
    if bias is None:
        return (weight @ input.mT).mT
    if len(input) > 4 * input.shape[1] and not is_batchedtensor(input):
        # many rows that all points share: the bias as the weight of one more column of ones
        return (torch.cat([weight, bias[:, None]], 1) @ F.pad(input, (0, 1), value=1.0).mT).mT
    return _plus(weight @ input.mT, bias[:, None]).mT


def _plus(product: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return product
    # a bias alone may be mapped over, as with where="bias"
    fits = is_batchedtensor(product) or not is_batchedtensor(bias)
    if fits and not torch.is_grad_enabled() and bias.dtype == product.dtype:
        return product.add_(bias)
    return product + bias
