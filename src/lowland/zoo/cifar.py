"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from files on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lowland.errors import DataError
from lowland.files import PathLike
from lowland.zoo.cache import cached, checksum
from lowland.zoo.images import Labelled, Prepare
from lowland.zoo.sources import read_parquet, read_pickles
from lowland.zoo.splits import splits

# of the training images, as the papers' code has them
_MEAN = (0.4914, 0.4822, 0.4465)
_STD = (0.2023, 0.1994, 0.2010)
#: the Python versions: folder -> training files, test file
_PICKLES = {
    "cifar-10-batches-py": ([f"data_batch_{i}" for i in range(1, 6)], "test_batch"),
    "cifar-100-python": (["train"], "test"),
}


def cifar10(
    root: PathLike = "data/cifar10",
    *,
    train: int | None = None,
    validation: int = 5000,
    validation_from: str = "train",
    test: int | None = None,
    augment: bool = True,
    normalise: bool = True,
    seed: int = 0,
    cache: PathLike | None = None,
    device: torch.device | str | None = None,
    classes: int = 10,
) -> dict[str, Any]:
    """CIFAR-10 as the `data` of a configuration: splits, training transform, clean training
    examples.

    Images are decoded once and kept as bytes, on disk and in memory; batches are made floats as
    they are read.

    Args:
        root: a folder with `train.parquet` and `test.parquet`, of encoded images in the column
            `image` and labels in `label`; or with the folder of the Python version.
        train, test: numbers of examples; None: all that are left.
        validation: number of examples split off by `seed` from the file `validation_from`, "train"
            or "test"; with "test", training uses all 50,000 training images.
        augment: random crops of the image padded by 4 pixels, and mirroring, as in the papers.
        normalise: subtract the channels' means and divide by their deviations; else values in
            [0, 1].
        seed: of the splits.
        cache: folder for the decoded images; None: $LOWLAND_CACHE, else ~/.cache/lowland.
        device: where the bytes lie; "cuda" keeps them on the GPU.
        classes: labels lie in 0 ... classes - 1.

    Raises:
        DataError: files that are not there, not whole, or not of this form.
        ConfigError: more examples than there are.

    >>> from lowland.errors import LowlandError
    >>> try:
    ...     cifar10("nowhere")
    ... except LowlandError as error:
    ...     print(error)
    nowhere: expected train.parquet and test.parquet, or a folder cifar-10-batches-py or ...
    """
    files = _files(Path(root))
    data = {name: _read(paths, cache) for name, paths in files.items()}
    mean, std = (_MEAN, _STD) if normalise else ((0.0,) * 3, (1.0,) * 3)
    prepare = Prepare(mean, std)
    return splits(
        data["train"],
        data["test"],
        classes=classes,
        prepare=prepare,
        augment=Prepare(mean, std, pad=4, flip=True) if augment else prepare,
        validation=validation,
        validation_from=validation_from,
        train_count=train,
        test_count=test,
        seed=seed,
        device=device,
    )


def cifar100(
    root: PathLike = "data/cifar100", *, classes: int = 100, **options: Any
) -> dict[str, Any]:
    """CIFAR-100, with the options of `cifar10`.

    >>> from lowland.errors import LowlandError
    >>> try:
    ...     cifar100("nowhere")
    ... except LowlandError as error:
    ...     print(error)
    nowhere: expected train.parquet and test.parquet, or a folder cifar-10-batches-py or ...
    """
    return cifar10(root, classes=classes, **options)


def _files(root: Path) -> dict[str, list[Path]]:
    """The files of each part, in the first layout that is there."""
    layouts = [{name: [root / f"{name}.parquet"] for name in ("train", "test")}]
    for name, (train, test) in _PICKLES.items():
        folder = root if root.name == name else root / name
        layouts.append({"train": [folder / file for file in train], "test": [folder / test]})
    for layout in layouts:
        missing = [str(p) for paths in layout.values() for p in paths if not p.is_file()]
        if not missing:
            return layout
        if any(p.is_file() for paths in layout.values() for p in paths):
            raise DataError(f"{', '.join(missing)}: no such file; the data set is not whole.")
    raise DataError(
        f"{root}: expected train.parquet and test.parquet, or a folder {' or '.join(_PICKLES)}; "
        "check the path, or unpack the data set there."
    )


def _read(paths: list[Path], cache: PathLike | None) -> Labelled:
    def read() -> Labelled:
        is_parquet = paths[0].suffix == ".parquet"
        return read_parquet(paths[0]) if is_parquet else read_pickles(paths)

    images, labels = cached(paths[0], checksum(paths), read, cache=cache)
    if images.shape[1:] != (32, 32, 3):
        raise DataError(
            f"{paths[0]}: expected colour images of 32 x 32, found (height, width, channels) "
            f"{tuple(images.shape[1:])}; these are not CIFAR's."
        )
    return images, labels
