"""Residual networks with the activation before the convolution, for images of 32 x 32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lowland import checks
from lowland.errors import ConfigError
from lowland.zoo.init import he_fan_out

_BLOCKS = {"basic": (6, 1), "bottleneck": (9, 4)}  # layers in three blocks, outputs / planes


class PreResNet(nn.Module):
    """x + f(x) three stages over, f = convolutions each behind BatchNorm and ReLU.

    He et al. 2016, "Identity mappings in deep residual networks". The papers' PreResNet-110 and
    -164 have bottleneck blocks, 9n + 2 layers; PreResNet-20 has basic ones, 6n + 2.

    Args:
        depth: layers. classes: outputs. channels: of the images.
        block: "basic" or "bottleneck"; None: bottleneck from depth 44 on, as in the papers' code.
        width: channels of the first stage; the others have two and four times as many.

    >>> sum(p.numel() for p in PreResNet(depth=20).parameters())
    272282
    """

    def __init__(
        self,
        *,
        depth: int = 20,
        classes: int = 10,
        channels: int = 3,
        block: str | None = None,
        width: int = 16,
    ) -> None:
        super().__init__()
        if block is None:
            block = "basic" if depth < 44 else "bottleneck"
        checks.choice("block", block, _BLOCKS)
        layers, expansion = _BLOCKS[block]
        if depth < layers + 2 or (depth - 2) % layers:
            raise ConfigError(
                f"depth: expected {layers}n + 2 with {block} blocks, such as {3 * layers + 2}, got "
                f"{depth}."
            )
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        make = _Basic if block == "basic" else _Bottleneck
        blocks: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            planes = width * 2**stage
            for number in range((depth - 2) // layers):
                stride = 2 if stage and not number else 1
                blocks.append(make(inputs, planes, stride))
                inputs = planes * expansion
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, classes)
        he_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.norm(self.blocks(self.stem(images))), inplace=True)
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


class _Basic(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.shortcut = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        # in place: a BatchNorm needs its input for the gradient, not its output
        out = self.conv1(F.relu(self.norm1(x), inplace=True))
        out = self.conv2(F.relu(self.norm2(out), inplace=True))
        total: Tensor = out + self.shortcut(x)
        return total


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.shortcut = _shortcut(inputs, 4 * planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.norm1(x), inplace=True))
        out = self.conv2(F.relu(self.norm2(out), inplace=True))
        out = self.conv3(F.relu(self.norm3(out), inplace=True))
        total: Tensor = out + self.shortcut(x)
        return total


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity, or a projection where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)
