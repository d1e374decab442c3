"""A small convolutional network with BatchNorm."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNet(nn.Module):
    """Blocks of convolution, BatchNorm and ReLU, halving the image after each, then a linear layer.

    Args:
        channels: of the images. widths: output channels, block by block. classes: outputs.

    >>> import torch
    >>> ConvNet(channels=1, widths=(4, 8), classes=10)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, *, channels: int = 1, widths: tuple[int, ...] = (16, 32), classes: int = 10
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for inputs, outputs in zip((channels, *widths[:-1]), widths, strict=True):
            blocks += [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.features(images).mean((2, 3))
        logits: Tensor = self.head(features)
        return logits
