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
_FOLDERS = {10: "cifar-10-batches-py", 100: "cifar-100-python"}


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
            `image` and labels in `label`; or with `cifar-10-batches-py`, the Python version.
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
    nowhere: expected train.parquet and test.parquet, or cifar-10-batches-py/data_batch_1; ...
    """
    return _cifar(
        10,
        Path(root),
        train=train,
        validation=validation,
        validation_from=validation_from,
        test=test,
        augment=augment,
        normalise=normalise,
        seed=seed,
        cache=cache,
        device=device,
        classes=classes,
    )


def cifar100(
    root: PathLike = "data/cifar100",
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
    classes: int = 100,
) -> dict[str, Any]:
    """CIFAR-100, as `cifar10`; the Python version lies in `cifar-100-python`.

    >>> from lowland.errors import LowlandError
    >>> try:
    ...     cifar100("nowhere")
    ... except LowlandError as error:
    ...     print(error)
    nowhere: expected train.parquet and test.parquet, or cifar-100-python/train; ...
    """
    return _cifar(
        100,
        Path(root),
        train=train,
        validation=validation,
        validation_from=validation_from,
        test=test,
        augment=augment,
        normalise=normalise,
        seed=seed,
        cache=cache,
        device=device,
        classes=classes,
    )


def _cifar(kind: int, root: Path, *, cache: PathLike | None, **options: Any) -> dict[str, Any]:
    files = _files(kind, root)
    data = {name: _read(paths, kind, cache) for name, paths in files.items()}
    mean, std = (_MEAN, _STD) if options.pop("normalise") else ((0.0,) * 3, (1.0,) * 3)
    prepare = Prepare(mean, std)
    augment = Prepare(mean, std, pad=4, flip=True) if options.pop("augment") else prepare
    train_count, test_count = options.pop("train"), options.pop("test")
    return splits(
        data["train"],
        data["test"],
        train_count=train_count,
        test_count=test_count,
        prepare=prepare,
        augment=augment,
        **options,
    )


def _files(kind: int, root: Path) -> dict[str, list[Path]]:
    """The files of each part, in the first layout that is there."""
    folder = root if root.name == _FOLDERS[kind] else root / _FOLDERS[kind]
    if kind == 10:
        numbered = [folder / f"data_batch_{i}" for i in range(1, 6)]
        pickles = {"train": numbered, "test": [folder / "test_batch"]}
    else:
        pickles = {"train": [folder / "train"], "test": [folder / "test"]}
    parquet = {name: [root / f"{name}.parquet"] for name in ("train", "test")}
    for layout in (parquet, pickles):
        missing = [str(p) for paths in layout.values() for p in paths if not p.is_file()]
        if not missing:
            return layout
        if any(p.is_file() for paths in layout.values() for p in paths):
            raise DataError(f"{', '.join(missing)}: no such file; the data set is not whole.")
    first = pickles["train"][0].relative_to(folder.parent)
    raise DataError(
        f"{root}: expected train.parquet and test.parquet, or {first}; check the path, or unpack "
        "the data set there."
    )


def _read(paths: list[Path], kind: int, cache: PathLike | None) -> Labelled:
    def read() -> Labelled:
        if paths[0].suffix == ".parquet":
            return read_parquet(paths[0])
        return read_pickles(paths, label="labels" if kind == 10 else "fine_labels")

    images, labels = cached(paths[0], checksum(paths), read, cache=cache)
    if images.shape[1:] != (32, 32, 3):
        raise DataError(
            f"{paths[0]}: expected colour images of 32 x 32, found (height, width, channels) "
            f"{tuple(images.shape[1:])}; these are not CIFAR's."
        )
    return images, labels
