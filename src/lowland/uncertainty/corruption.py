"""Corrupted images, as from another camera than that of the training set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lowland import checks
from lowland.core import Batch, Task
from lowland.core.data import first_examples
from lowland.errors import DataError
from lowland.posteriors.noise import DATA, generator

_SLACK = 1e-3  # rounding may bring normalised pixels this far outside of [0, 1]


def gaussian_noise(images: Tensor, deviation: float, *, seed: int = 0, first: int = 0) -> Tensor:
    """Independent noise of this standard deviation; that of image i is a function of the seed and
    first + i alone."""
    noise = torch.empty(images.shape)
    for i, image in enumerate(noise):
        image.normal_(generator=generator(seed, first + i, DATA))
    return images + deviation * noise.to(images)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Convolution with a Gaussian cut at 4 sigma; the last pixel continues beyond an edge."""
    down, right = (_kernel(size, sigma).to(images) for size in images.shape[2:])
    return down @ images @ right.T  # for small images a product is faster than a convolution


def _kernel(size: int, sigma: float) -> Tensor:  # (size, size): each row blurs into a pixel
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    places = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    rows = (weights / weights.sum()).expand(size, -1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, places, rows)


def contrast(images: Tensor, factor: float) -> Tensor:
    """Distances from each channel's mean over the image, multiplied by the factor."""
    mean = images.mean((2, 3), keepdim=True)
    return (images - mean) * factor + mean


def pixelate(images: Tensor, fraction: float) -> Tensor:
    """Means over blocks: along a side, `fraction` times as many blocks as pixels, rounded down."""
    down, right = (_blocks(size, fraction).to(images) for size in images.shape[2:])
    return down @ images @ right.T


def _blocks(size: int, fraction: float) -> Tensor:  # (size, size): each row averages over a block
    count = max(int(size * fraction), 1)
    edges = (torch.arange(count + 1, dtype=torch.float64) * size / count + 0.5).floor()
    places = torch.arange(size)
    inside = (places >= edges[:-1, None]) & (places < edges[1:, None])  # (count, size)
    means = inside.double() / inside.sum(1, keepdim=True)
    return means[((places + 0.5) * count / size).long()]


#: kind -> (function, its parameter at strengths 1 to 5): those of CIFAR-10-C
CORRUPTIONS: dict[str, tuple[Callable[..., Tensor], tuple[float, ...]]] = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "gaussian_blur": (gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
}
STRENGTHS = (1, 2, 3, 4, 5)


def corrupt(images: Tensor, kind: str, strength: int, *, seed: int = 0, first: int = 0) -> Tensor:
    """Images under one corruption, after Hendrycks & Dietterich 2019; clipped to [0, 1].

    The parameters at each strength are those of their CIFAR-10-C (`make_cifar_c.py` in
    github.com/hendrycks/robustness), chosen for 32 x 32 pixels; values stay floating-point here,
    where theirs are rounded to 8 bits.

    | kind | parameter | strengths 1 to 5 |
    | --- | --- | --- |
    | gaussian_noise | standard deviation of a pixel's noise | 0.04 0.06 0.08 0.09 0.10 |
    | gaussian_blur | sigma in pixels | 0.4 0.6 0.7 0.8 1 |
    | contrast | factor of distances from the channel's mean | 0.75 0.5 0.4 0.3 0.15 |
    | pixelate | blocks along a side, as a fraction of its pixels | 0.95 0.9 0.85 0.75 0.65 |

    Args:
        images: (N, C, H, W) floating-point, in [0, 1].
        seed: seed of the noise.
        first: the index of the first image in its data set: an image's noise is a function of the
            seed and its index alone, whatever the batches.

    Raises:
        ConfigError: an unknown kind or strength. DataError: other shapes or values.

    >>> image = torch.tensor([[[[0.0, 1.0], [1.0, 1.0]]]])
    >>> corrupt(image, "contrast", 2)  # halfway to the mean, 0.75
    tensor([[[[0.3750, 0.8750],
              [0.8750, 0.8750]]]])
    """
    checks.choice("kind", kind, CORRUPTIONS)
    strength = checks.whole("strength", strength, least=STRENGTHS[0], most=STRENGTHS[-1])
    seed, first = checks.seed(seed), checks.whole("first", first, least=0)
    _require_images(images)
    if not len(images):
        return images
    low, high = (float(value) for value in torch.aminmax(images))
    if not -_SLACK <= low <= high <= 1 + _SLACK:
        raise DataError(
            f"corruptions are for images in [0, 1], got values from {low:.3g} to {high:.3g}; undo "
            'their normalisation first (the data of a run name it with "normalise").'
        )
    function, parameters = CORRUPTIONS[kind]
    options = {"seed": seed, "first": first} if function is gaussian_noise else {}
    corrupted = function(images.clamp(0, 1), parameters[STRENGTHS.index(strength)], **options)
    return corrupted.clamp(0, 1)


def _require_images(images: Tensor) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise DataError(
            f"corruptions are for images, (N, C, H, W) floating-point; got {tuple(images.shape)} "
            f"of {images.dtype}."
        )


class Normalisation(NamedTuple):
    """Normalised images are (pixels - mean) / std, with one mean and std per channel.

    >>> Normalisation([0.5], [0.25]).invert(torch.tensor([[[[2.0]]]]))
    tensor([[[[1.]]]])
    """

    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    def apply(self, pixels: Tensor) -> Tensor:  # (N, C, H, W)
        """Normalised images of pixels in [0, 1]."""
        mean, std = self._columns(pixels)
        return (pixels - mean) / std

    def invert(self, images: Tensor) -> Tensor:  # (N, C, H, W)
        """The pixels of normalised images."""
        mean, std = self._columns(images)
        return images * std + mean

    def _columns(self, images: Tensor) -> tuple[Tensor, Tensor]:  # (C, 1, 1) each
        mean, std = (torch.as_tensor(part).to(images).view(-1, 1, 1) for part in self)
        return mean, std


class Corrupted:
    """A loader of the same examples under one corruption after another.

    One loader holds all, so that each draw of a posterior is made, and its BatchNorm statistics
    are estimated, once for all corruptions.

    Args:
        loader: of labelled images.
        task: splits a batch into inputs and targets.
        shifts: (kind, strength) pairs.
        examples: how many of each shift, the first ones; None: all.
        normalise: how the loader's images are normalised; corrupted ones are normalised alike.

    >>> from lowland.core import Classification
    >>> batches = [(torch.rand(4, 1, 8, 8), torch.zeros(4))]
    >>> shifts = [("contrast", 1), ("contrast", 5)]
    >>> loader = Corrupted(batches, Classification(), shifts, examples=3)
    >>> [len(batch.target) for batch in loader]
    [3, 3]
    """

    def __init__(
        self,
        loader: Iterable[Any],
        task: Task,
        shifts: Sequence[tuple[str, int]],
        *,
        seed: int = 0,
        examples: int | None = None,
        normalise: Normalisation | None = None,
    ) -> None:
        self.loader = loader
        self.task = task
        self.shifts = list(shifts)
        self.seed = seed
        self.examples = examples
        self.normalise = normalise or Normalisation()

    def __iter__(self) -> Iterator[Batch]:
        for kind, strength in self.shifts:
            first = 0
            for batch in self.loader:
                parts = self.task.parts(batch)
                if self.examples is not None:
                    parts = first_examples(parts, self.examples - first)
                images = one_input(parts)
                _require_images(images)  # before `invert`, which would broadcast other shapes
                pixels = self.normalise.invert(images)
                corrupted = corrupt(pixels, kind, strength, seed=self.seed, first=first)
                yield parts._replace(args=(self.normalise.apply(corrupted),))
                first += len(pixels)
                if self.examples is not None and first >= self.examples:
                    break


def one_input(parts: Batch) -> Tensor:
    """The only input tensor of a batch; raises `DataError` where there are more."""
    args, kwargs, _ = parts
    if len(args) != 1 or kwargs or not isinstance(args[0], Tensor):
        inputs = [type(value).__name__ for value in args] + list(kwargs)
        raise DataError(f"expected batches of one input tensor, got {', '.join(inputs)}.")
    return args[0]
