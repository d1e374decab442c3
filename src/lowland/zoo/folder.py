"""Folders of images, one folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lowland.errors import DataError
from lowland.files import PathLike
from lowland.zoo.cache import cached, listing
from lowland.zoo.images import Labelled, Prepare
from lowland.zoo.sources import decode
from lowland.zoo.splits import select_images, split_sizes, splits

_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_PARTS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}


def image_folder(
    root: PathLike,
    *,
    size: int | tuple[int, int] | None = None,
    colour: bool = True,
    validation: float = 0.1,
    test: float = 0.2,
    augment: bool = True,
    pad: int | None = None,
    normalise: bool = True,
    seed: int = 0,
    cache: PathLike | None = None,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """Images in `root/CLASS/*` or in `root/{train,validation,test}/CLASS/*`, in memory as bytes.

    Class 0 is the first name in alphabetical order. Images are decoded once, as with `cifar10`; a
    set must fit in memory at height x width x channels bytes an image.

    Args:
        root: the folder. A missing validation or test folder is split off the training images.
        size: height and width that images are scaled and cropped to, about their centre; None:
            they are of one size already.
        colour: three channels, else one.
        validation, test: shares (below 1) or numbers of examples, split by `seed`.
        augment: random crops of the image padded by `pad` pixels (None: an eighth of its height),
            and mirroring.
        normalise: to mean 0 and deviation 1 of each channel over the training images; else values
            in [0, 1].
        cache, device: as with `cifar10`.

    Raises:
        DataError: no classes or images, images that do not decode or are not of one size.
        ConfigError: splits that leave no training examples.

    >>> import tempfile
    >>> from PIL import Image
    >>> root = Path(tempfile.mkdtemp())
    >>> for i in range(20):
    ...     path = root / ("cat" if i % 2 else "dog") / f"{i}.png"
    ...     path.parent.mkdir(exist_ok=True)
    ...     Image.new("RGB", (10 + i, 12), (i, 0, 0)).save(path)
    >>> data = image_folder(root, size=8, cache=root / "cache")
    >>> tuple(data["train"][0].shape), data["validation"].num_examples, data["test"].num_examples
    ((14, 8, 8, 3), 2, 4)
    """
    folder = Path(root)
    height_width = (size, size) if isinstance(size, int) else size
    where = _parts(folder)
    names = _classes(where["train"], folder)
    data = {}
    for part, place in where.items():
        others = _classes(place, place)
        if others != names:
            raise DataError(
                f"{place}: expected the classes {', '.join(names)}, found {', '.join(others)}."
            )
        data[part] = _read(place, names, height_width, "RGB" if colour else "L", cache)
    train_images, validation_images, test_images = _divided(data, validation, test, seed)
    channels = train_images[0].shape[-1]
    mean, std = moments(train_images[0]) if normalise else ((0.0,) * channels, (1.0,) * channels)
    prepare = Prepare(mean, std)
    if augment:
        border = train_images[0].shape[1] // 8 if pad is None else pad
        training = Prepare(mean, std, pad=border, flip=True)
    return splits(
        train_images,
        test_images,
        classes=len(names),
        prepare=prepare,
        augment=training if augment else prepare,
        validation=validation_images,
        seed=seed,
        device=device,
    )


def moments(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of bytes, in units of 1; a constant one has deviation 1.

    >>> moments(torch.tensor([[[[0], [255]]]], dtype=torch.uint8))
    ((0.5,), (0.5,))
    """
    # whole numbers, so exact: how often each value occurs
    counts = torch.stack(
        [
            sum(
                (
                    torch.bincount(part[..., c].flatten(), minlength=256)
                    for part in images.split(1000)
                ),
                start=torch.zeros(256, dtype=torch.int64),
            )
            for c in range(images.shape[-1])
        ]
    ).double()
    share = counts / counts.sum(1, keepdim=True)  # (C, 256)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ values
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt()
    std[std == 0] = 1.0
    return tuple(mean.tolist()), tuple(std.tolist())


def _parts(folder: Path) -> dict[str, Path]:
    """The folder of each part; of training images alone where there are no parts."""
    folders = {}
    for part, names in _PARTS.items():
        places = [folder / name for name in names if (folder / name).is_dir()]
        if places:
            folders[part] = places[0]
    return folders if "train" in folders else {"train": folder}


def _classes(place: Path, root: Path) -> list[str]:
    if not place.is_dir():
        raise DataError(f"{root}: no such folder; check the path.")
    names = sorted(p.name for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise DataError(
            f"{place}: expected a folder for each class, or train, validation and test with one "
            f"for each class; found {', '.join(names) or 'none'}."
        )
    return names


def _read(
    place: Path, names: list[str], size: tuple[int, int] | None, mode: str, cache: PathLike | None
) -> Labelled:
    files = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((place / name).rglob("*"))
        if path.suffix.lower() in _ENDINGS
    ]
    paths = [path for path, _ in files]
    if not paths:
        raise DataError(f"{place}: no image in {', '.join(names)}; known are {_endings()}.")

    def read() -> Labelled:
        images = decode(paths, lambda i: str(paths[i]), size=size, mode=mode)
        return images, torch.tensor([label for _, label in files])

    return cached(place, listing(paths, size, mode), read, cache=cache)


def _endings() -> str:
    return ", ".join(sorted(_ENDINGS))


def _divided(
    data: dict[str, Labelled], validation: float, test: float, seed: int
) -> tuple[Labelled, Labelled, Labelled]:
    """Training, validation and test images; a part without a folder is split off the first."""
    train = data["train"]
    n = len(train[1])
    shares = {"validation": validation, "test": test}
    missing = [part for part in shares if part not in data]
    counts = split_sizes(n, *(shares[part] for part in missing))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    *cut, rest = order.tensor_split(torch.tensor(counts).cumsum(0)) if counts else (order,)
    for part, index in zip(missing, cut, strict=True):
        data = data | {part: select_images(train, index)}
    return select_images(train, rest), data["validation"], data["test"]
