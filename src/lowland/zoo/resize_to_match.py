"""Images of another data set, brought to the shape of a run's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowland import checks
from lowland.errors import ConfigError, DataError
from lowland.zoo.load_splits import load_splits

_LUMA = (0.299, 0.587, 0.114)  # what grey is made of: ITU-R BT.601, as Pillow's


def resize_to_match(
    data: str | Mapping[str, Any], *, size: int | tuple[int, int], channels: int = 3
) -> dict[str, Any]:
    """The test images of a data set in [0, 1], scaled and converted to grey or colour.

    For `lowland compare --ood`, which normalises them like the run's own.

    Args:
        data: `lowland.zoo:cifar10`, another callable's name, {name: ..., args: {...}}, or the
            splits themselves, of images (N, C, H, W) in [0, 1], or with "normalise" beside them.
        size: height and width, to which images are scaled with antialiasing; (height, width).
        channels: 1 (grey) or 3.

    >>> from lowland.zoo import digits
    >>> resize_to_match(digits(), size=32)["test"][0].shape
    torch.Size([539, 3, 32, 32])
    """
    height_width = (size, size) if isinstance(size, int) else tuple(size)
    if len(height_width) != 2 or min(height_width) < 1:
        raise ConfigError(f"size: expected a positive number, or height and width, got {size}.")
    checks.choice("channels", channels, (1, 3))
    splits = load_splits(data)
    test = splits["test"]
    batches = [test] if isinstance(test, tuple) and isinstance(test[0], Tensor) else test
    images, labels = [], []
    for batch in batches:
        x = batch[0] if isinstance(batch, tuple | list) and len(batch) == 2 else None
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] not in (1, 3):
            raise DataError(
                "test: expected (images, labels) with images (N, 1, H, W) or (N, 3, H, W); bring "
                "other images to that shape in a callable of your own."
            )
        images.append(_shaped(_pixels(x, splits.get("normalise")), height_width, channels))
        labels.append(batch[1])
    name = {"name": splits["name"]} if "name" in splits else {}
    return {"test": (torch.cat(images), torch.cat(labels)), **name}


def _pixels(x: Tensor, normalise: Any) -> Tensor:
    """What the images were before they were normalised, in [0, 1]."""
    if not x.is_floating_point():
        return x.float() / 255
    if normalise is None:
        return x
    mean, std = (torch.as_tensor(part, dtype=x.dtype).view(-1, 1, 1) for part in normalise)
    return x * std + mean


def _shaped(x: Tensor, size: tuple[int, int], channels: int) -> Tensor:
    if channels == 1 and x.shape[1] == 3:
        x = (x * x.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    x = x.expand(-1, channels, -1, -1)
    if tuple(x.shape[2:]) != size:
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
    return x.clamp(0, 1).contiguous()
