r"""Linear layers of many weight vectors at once.

Under `torch.func.vmap` a linear layer whose weights are mapped over becomes a batched product, a
multiplication by one and two additions, each a pass over the activations. Here it is
\(y^T = W x^T + b\): one product, which includes the bias, or to which the bias is added in place
where no gradient is needed. The result has the examples last in memory, as the next product needs
them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_batchedtensor
from torch.overrides import TorchFunctionMode


class BatchedLinearMode(TorchFunctionMode):
    """Replaces `F.linear` by `linear` while it is active.

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
            func = Tensor.reshape  # a view may not exist where examples lie last
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
        return _add_bias(input @ weight.mT, bias)
    if bias is None:
        return (weight @ input.mT).mT
    if len(input) > 4 * input.shape[1] and not is_batchedtensor(input):
        # many examples that all points share: the bias is the weight of one more column of ones
        return (torch.cat([weight, bias[:, None]], 1) @ F.pad(input, (0, 1), value=1.0).mT).mT
    return _add_bias(weight @ input.mT, bias[:, None]).mT


def _add_bias(product: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return product
    # a bias alone may be mapped over, as with where="bias"
    fits = is_batchedtensor(product) or not is_batchedtensor(bias)
    if fits and not torch.is_grad_enabled() and bias.dtype == product.dtype:
        return product.add_(bias)
    return product + bias
