"""The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""

from __future__ import annotations

from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lowland import checks
from lowland.errors import ConfigError

Split = tuple[Tensor, Tensor]


def digits(
    *, train: float = 0.5, validation: float = 0.2, shift: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Images (N, 1, 8, 8) in [0, 1] and labels (N,), in three splits.

    Args:
        train, validation: shares of the examples; the rest is the test split.
        shift: the largest random shift of training images in pixels, in each direction: the result
            then contains a "transform".
        seed: of the split.

    >>> {name: len(labels) for name, (_, labels) in digits().items()}
    {'train': 898, 'validation': 360, 'test': 539}
    """
    if not (train > 0 and validation > 0 and train + validation < 1):
        raise ConfigError(
            f"expected positive shares with a rest for the test split, got train={train}, "
            f"validation={validation}."
        )
    datasets = checks.package("sklearn.datasets", extra="cli", purpose="loading digits")
    images, labels = _load(datasets)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    ends = [round(len(labels) * train), round(len(labels) * (train + validation))]
    parts = dict(zip(("train", "validation", "test"), order.tensor_split(ends), strict=True))
    splits: dict[str, Any] = {n: (images[index], labels[index]) for n, index in parts.items()}
    return splits | {"transform": partial(shifted, most=shift)} if shift else splits


@cache
def _load(datasets: ModuleType) -> Split:
    """Images and labels of a file of text, whose reading takes longer than training on a few."""
    bunch = datasets.load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    return images, torch.from_numpy(np.asarray(bunch.target)).long()


def shifted(batch: Split, generator: torch.Generator, *, most: int) -> Split:
    """Each image moved by up to `most` pixels up or down and left or right; zeros come in.

    >>> images = torch.arange(8.0).view(2, 1, 2, 2)
    >>> same, _ = shifted((images, torch.zeros(2)), torch.Generator().manual_seed(0), most=0)
    >>> torch.equal(same, images)
    True
    """
    images, labels = batch
    n, _, height, width = images.shape
    padded = F.pad(images, (most,) * 4)
    down, right = torch.randint(2 * most + 1, (2, n, 1), generator=generator)
    lines = down + torch.arange(height)  # (n, height)
    columns = right + torch.arange(width)
    each = torch.arange(n)[:, None, None]
    # one gather for the batch: (n, height, width, channels) comes out, channels in front again
    shifted_images = padded[each, :, lines[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return shifted_images.contiguous(), labels
