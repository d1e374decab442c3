"""Images in memory as bytes: cropped, flipped and normalised a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lowland.core.seeds import stream
from lowland.core.threads import using_threads
from lowland.errors import ConfigError

Labelled = tuple[Tensor, Tensor]  # (N, H, W, C) uint8, (N,) int64


@dataclass(frozen=True)
class Prepare:
    """(x / 255 - mean) / std of a crop of the padded image, mirrored or not: bytes to floats.

    A batch transform for `lowland.train.Batches`: (n, H, W, C) bytes become (n, C, H, W) float32
    in channels_last memory. All images of a batch go through each operation at once, on the device
    that they lie on; the random numbers are drawn on the CPU, so they do not depend on it.

    Args:
        mean, std: of each channel, in units of 1.
        pad: black pixels around the image that a crop of its size is taken from at random; 0: none.
        flip: mirror each image with probability 1/2.

    >>> prepare = Prepare(mean=(0.5,), std=(0.25,))
    >>> image = torch.tensor([[[[0], [255]]]], dtype=torch.uint8)  # (1, 1, 2, 1)
    >>> prepare((image, torch.zeros(1)))[0]
    tensor([[[[-2.,  2.]]]])
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 0
    flip: bool = False

    def __call__(self, batch: Labelled, generator: torch.Generator | None = None) -> Labelled:
        images, labels = batch
        with using_threads(1):
            if self.pad:
                images = self._cropped(images, generator)
            if self.flip:
                images = self._mirrored(images, generator)
            n, height, width, channels = images.shape
            scale, shift = _affine(self.mean, self.std, height * width, images.device)
            # one row an image: a broadcast over three channels alone is seven times slower
            flat = images.reshape(n, -1).float().mul_(scale).add_(shift)
        return flat.view(n, height, width, channels).permute(0, 3, 1, 2), labels

    def _cropped(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        n, height, width, channels = images.shape
        pad, device = self.pad, images.device
        tall, wide = height + 2 * pad, width + 2 * pad
        padded = F.pad(images.reshape(n, height, -1), (pad * channels,) * 2 + (pad,) * 2)
        # a row of a crop is a run of bytes that may begin at any pixel: pick runs, not pixels
        runs = padded.as_strided((n * tall * wide - width + 1, width * channels), (channels, 1))
        down, right = torch.randint(2 * pad + 1, (2, n, 1), generator=generator)
        lines = torch.arange(n)[:, None] * tall + down + torch.arange(height)  # (n, height)
        starts = (lines * wide + right).flatten().to(device)
        return runs.index_select(0, starts).view(n, height, width, channels)

    def _mirrored(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        index = torch.randint(2, (len(images),), generator=generator).nonzero()[:, 0]
        index = index.to(images.device)
        mirrored = images.index_select(0, index).flip(2)
        return images.index_copy(0, index, mirrored)


@lru_cache(maxsize=32)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], pixels: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """scale, shift (pixels x C,) with x scale + shift = (x / 255 - mean) / std."""
    means, stds = torch.tensor([mean, std], dtype=torch.float64)
    scale, shift = 1 / (255 * stds), -means / stds
    scale, shift = (v.float().repeat(pixels).to(device) for v in (scale, shift))
    return scale, shift


class ImageLoader:
    """Batches of bytes made floats on the fly, the same each time: for evaluation.

    Args:
        data: images (N, H, W, C) and labels (N,). prepare: without `pad` and `flip`, or with a
            `seed`: each image then has one crop and mirroring, in every pass.
        index: the examples to read, in their order; None: all.
        batch_size: examples a batch.

    >>> data = torch.zeros(5, 2, 2, 1, dtype=torch.uint8), torch.arange(5)
    >>> loader = ImageLoader(data, Prepare((0.5,), (1.0,)), index=torch.tensor([4, 0]))
    >>> [(tuple(x.shape), y.tolist()) for x, y in loader], loader.num_examples
    ([((2, 1, 2, 2), [4, 0])], 2)
    """

    def __init__(
        self,
        data: Labelled,
        prepare: Prepare,
        *,
        index: Tensor | None = None,
        batch_size: int = 512,
        seed: int | None = None,
    ) -> None:
        if seed is None and (prepare.pad or prepare.flip):
            raise ConfigError(
                "an ImageLoader replays its examples: give a seed, or a Prepare without "
                "pad and flip."
            )
        self.images, self.labels = data
        self.prepare = prepare
        self.index = torch.arange(len(self.labels)) if index is None else index
        self.batch_size = batch_size
        self.seed = seed

    @property
    def num_examples(self) -> int:
        """Images in a pass."""
        return len(self.index)

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[Labelled]:
        generator = None if self.seed is None else stream("augmentation", self.seed)
        for part in self.index.to(self.images.device).split(self.batch_size):
            batch = self.images.index_select(0, part), self.labels.index_select(0, part)
            yield self.prepare(batch, generator)
