"""VGG-16 with BatchNorm for images of 32 x 32."""

from __future__ import annotations

from torch import Tensor, nn

from lowland.errors import ConfigError
from lowland.zoo.init import he_fan_out

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions


class VGG16(nn.Module):
    """Thirteen 3 x 3 convolutions with BatchNorm in five stages, then 512-512-classes.

    Simonyan and Zisserman 2015, as Izmailov et al. 2018 train it on CIFAR: dropout before the two
    hidden linear layers; 15.25 million parameters for ten classes.

    Args:
        classes: outputs. channels: of the images.
        width: factor on the channels; below 1 for trials.
        dropout: rate in the classifier.

    >>> sum(p.numel() for p in VGG16().parameters())
    15253578
    """

    def __init__(
        self,
        *,
        classes: int = 10,
        channels: int = 3,
        width: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if width * _STAGES[0][0] < 1:
            raise ConfigError(f"width: expected at least 1/64, got {width}: no channel is left.")
        layers: list[nn.Module] = []
        for full, convolutions in _STAGES:
            outputs = round(full * width)
            for _ in range(convolutions):
                layers += [
                    nn.Conv2d(channels, outputs, 3, padding=1),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(inplace=True),
                ]
                channels = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, classes),
        )
        he_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).flatten(1))
        return logits
