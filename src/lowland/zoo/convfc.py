"""The network without BatchNorm of the mode connectivity paper."""

from __future__ import annotations

from torch import Tensor, nn

from lowland.zoo.init import he_fan_out


class ConvFC(nn.Module):
    """Three 5 x 5 convolutions with overlapping pooling, then three linear layers of 1,000 units.

    Garipov et al. 2018, whose supplement calls it a three-layer convolutional network; 2.4 million
    parameters for ten classes, no BatchNorm, images of 32 x 32.

    Args:
        classes: outputs. channels: of the images.

    >>> sum(p.numel() for p in ConvFC().parameters())
    2422634
    """

    def __init__(self, *, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for inputs, outputs in ((channels, 32), (32, 64), (64, 128)):
            blocks += [nn.Conv2d(inputs, outputs, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Linear(128 * 3 * 3, 1000),  # 32 -> 15 -> 7 -> 3 pixels
            nn.ReLU(),
            nn.Linear(1000, 1000),
            nn.ReLU(),
            nn.Linear(1000, classes),
        )
        he_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).flatten(1))
        return logits
