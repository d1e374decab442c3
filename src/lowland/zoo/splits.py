"""From decoded images to what a run takes: splits by seed, training transform, clean rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowland.errors import ConfigError, DataError
from lowland.zoo.images import ImageLoader, Labelled, Prepare


def splits(
    train: Labelled,
    test: Labelled,
    *,
    classes: int,
    rows: int | None = None,
    validation: int,
    validation_from: str = "train",
    test_rows: int | None = None,
    prepare: Prepare,
    augment: Prepare,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """The mapping that a configuration's `data` gives, of training and test images.

    Args:
        train, test: decoded images and labels, of two files.
        classes: labels lie in 0 ... classes - 1.
        rows, test_rows: so many training and test rows, chosen by `seed`; None: all that are left.
        validation: rows split off by `seed` from `validation_from`, "train" or "test"; 0: none.
        prepare, augment: how rows become floats in evaluation and in training.
        device: where the bytes lie; None: the CPU.
    """
    if validation_from not in ("train", "test"):
        raise ConfigError(f"validation_from: expected train or test, got {validation_from!r}.")
    for name, (images, labels) in (("train", train), ("test", test)):
        _check(name, images, labels, classes)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"the training images are (height, width, channels) {tuple(train[0].shape[1:])}, the "
            f"test images {tuple(test[0].shape[1:])}; bring them to one size and mode."
        )
    taken = {"train": 0, "test": 0, validation_from: validation}
    chosen: dict[str, Tensor] = {}
    for number, (name, data, wanted) in enumerate(
        (("train", train, rows), ("test", test, test_rows))
    ):
        n = len(data[1])
        left = n - taken[name]
        if validation < 0 or left < 1 or (wanted is not None and not 1 <= wanted <= left):
            asked = "1 or more" if wanted is None else str(wanted)
            raise ConfigError(
                f"expected {asked} {name} rows and {taken[name]} validation rows, got {n} in the "
                f"{name} file; ask for fewer."
            )
        # a stream each: the test rows do not depend on how many training rows there are
        order = torch.randperm(n, generator=torch.Generator().manual_seed(2 * seed + number))
        chosen[name] = order[taken[name] :][:wanted]
        if validation and name == validation_from:
            chosen["validation"] = order[:validation]
    files = {"train": train, "test": test}
    files = {k: (x.to(device), y.to(device)) for k, (x, y) in files.items()}

    def loader(split: str, file: str) -> ImageLoader:
        return ImageLoader(files[file], prepare, index=chosen[split])

    # BatchNorm reads the first of the clean rows: in random order those of every class are there
    out: dict[str, Any] = {
        "train": _rows(files["train"], chosen["train"]),
        "test": loader("test", "test"),
        "clean": loader("train", "train"),
        "transform": augment,
    }
    if validation:
        out["validation"] = loader("validation", validation_from)
    return out


def _rows(data: Labelled, index: Tensor) -> Labelled:
    """These rows in the file's order; the file's own tensors where they are all of it."""
    if len(index) == len(data[1]):
        return data
    index = index.sort().values.to(data[0].device)
    return data[0].index_select(0, index), data[1].index_select(0, index)


def _check(name: str, images: Tensor, labels: Tensor, classes: int) -> None:
    if len(images) != len(labels):
        raise DataError(f"{name}: {len(images)} images, but {len(labels)} labels.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{name}: expected labels from 0 to {classes - 1}, found {low} to {high}; check "
            "classes and the file."
        )
