"""Parameters and buffers of a model for checkpoints, wrapped or not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowland.core.names import clean_names, named_state
from lowland.errors import ConfigError


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by their names in the model, also the buffers that a state dict leaves
    out, since training may depend on them."""
    return {name: tensor.detach() for name, tensor in named_state(model, aliases=False).items()}


@torch.no_grad()
def load_model_state(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Writes what `model_state` returned into a model, wrapped or not."""
    empty: dict[str, nn.Module] = {}  # buffers that are None until a forward pass fills them
    for prefix, module in model.named_modules():
        for key, buffer in module._buffers.items():
            if buffer is None:
                empty[f"{prefix}.{key}" if prefix else key] = module
    device = next(model.parameters()).device
    for name, tensor in named_state(model, aliases=False).items():
        if name not in tensors:
            raise ConfigError(
                f"the checkpoint comes from another model: it has no {name}; name another "
                "checkpoint, or delete it to start anew."
            )
        tensor.copy_(tensors[name])
    for name, short in clean_names(empty).items():
        if short in tensors:
            empty[name]._buffers[name.rpartition(".")[2]] = tensors[short].to(device, copy=True)
