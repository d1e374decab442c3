"""The initialisation that the papers' networks share."""

from __future__ import annotations

import math

from torch import nn


def he_fan_out(model: nn.Module) -> None:
    """Convolutions ~ N(0, 2 / fan_out) (He et al. 2015), their biases 0; the rest as torch has it.

    >>> import torch
    >>> conv = nn.Conv2d(3, 256, 3)
    >>> he_fan_out(conv)
    >>> abs(conv.weight.std().item() / math.sqrt(2 / (9 * 256)) - 1) < 0.1, conv.bias.any().item()
    (True, False)
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
