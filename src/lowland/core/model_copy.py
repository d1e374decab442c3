"""Private copies of models, without compiled and data-parallel wrappers."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile` and data-parallel wrappers."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(model, parallel) or uncompiled(model) is not model:
        model = model.module if isinstance(model, parallel) else uncompiled(model)
    return model


def uncompiled(module: nn.Module) -> nn.Module:
    """What `torch.compile` wrapped, or the module itself."""
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, nn.Module) else module


def private_copy(model: nn.Module) -> nn.Module:
    """A deep copy, ties kept, of models with computed attributes too.

    `torch.nn.utils.weight_norm` leaves a computed tensor on the module, which `deepcopy` refuses;
    it is copied as a constant, and computed anew at the next forward pass. Compiled parts are
    copied uncompiled, since compiled code is bound to its own weights.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in (*vars(module).values(), *module._buffers.values()):
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    copied = copy.deepcopy(model, memo)
    for module in list(copied.modules()):
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = uncompiled(child)
    return copied
