"""Wide residual networks for images of 32 x 32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lowland.errors import ConfigError


class WideResNet(nn.Module):
    """Pre-activation residual blocks of two 3 x 3 convolutions, `width` times as wide.

    Zagoruyko and Komodakis 2016, as Izmailov et al. 2018 train it: WRN-28-10, 36.5 million
    parameters, convolutions with biases, Xavier uniform with gain sqrt(2).

    Args:
        depth: layers, 6n + 4. width: factor on the channels 16, 32, 64.
        classes: outputs. channels: of the images.
        dropout: rate between the convolutions of a block.

    >>> sum(p.numel() for p in WideResNet(depth=10, width=1).parameters())
    78186
    """

    def __init__(
        self,
        *,
        depth: int = 28,
        width: int = 10,
        classes: int = 10,
        channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ConfigError(f"depth: expected 6n + 4, such as 28, got {depth}.")
        self.stem = nn.Conv2d(channels, 16, 3, padding=1)
        blocks: list[nn.Module] = []
        inputs = 16
        for stage in range(3):
            planes = 16 * width * 2**stage
            for number in range((depth - 4) // 6):
                stride = 2 if stage and not number else 1
                blocks.append(_Wide(inputs, planes, stride, dropout))
                inputs = planes
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight, gain=2**0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.norm(self.blocks(self.stem(images))), inplace=True)
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


class _Wide(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1)
        same = stride == 1 and inputs == planes
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, planes, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.dropout(self.conv1(F.relu(self.norm1(x), inplace=True)))
        out = self.conv2(F.relu(self.norm2(out), inplace=True))
        total: Tensor = out + self.shortcut(x)
        return total
