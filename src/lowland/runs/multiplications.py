"""How many multiplications a forward pass takes, estimated from the layers of a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lowland.core import Batch
from lowland.core.data import tensors
from lowland.core.task import count_examples


@torch.no_grad()
def multiplications(model: nn.Module, batch: Batch) -> float:
    """Multiplications of a forward pass for one example of a batch.

    Each weight of a layer counts once for each position of the layer's outputs: right for linear
    layers and convolutions, and about right for others. The model runs once, in evaluation mode.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 10))
    >>> count = multiplications(model, Batch((torch.zeros(2, 3, 4, 4),), {}, None))
    >>> count == 8 * 3 * 3**2 * 4**2 + 8 * 16 * 10
    True
    """
    examples, total = count_examples(batch), 0.0

    def count(module: nn.Module, inputs: Any, outputs: Any) -> None:
        nonlocal total
        output = next(tensors(outputs), None)
        for weight in module.parameters(recurse=False):
            if isinstance(output, Tensor) and weight.ndim >= 2:
                positions = output.numel() / (examples * weight.shape[0])
                total += weight.numel() * positions

    was_training = model.training
    hooks = [module.register_forward_hook(count) for module in model.modules()]
    try:
        model.eval()(*batch.args, **batch.kwargs)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return total
