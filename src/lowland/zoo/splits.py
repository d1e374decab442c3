"""From decoded images to what a run takes: splits by seed, training transform, clean rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowland.core.seeds import stream
from lowland.errors import ConfigError, DataError
from lowland.zoo.images import ImageLoader, Labelled, Prepare


def splits(
    train: Labelled,
    test: Labelled,
    *,
    classes: int,
    prepare: Prepare,
    augment: Prepare,
    validation: int | Labelled,
    validation_from: str = "train",
    rows: int | None = None,
    test_rows: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """The mapping that a configuration's `data` gives, of training and test images.

    Args:
        train, test: images and labels, of two files.
        classes: labels lie in 0 ... classes - 1.
        prepare, augment: how rows become floats in evaluation and in training.
        validation: rows split off by `seed` from `validation_from`, "train" or "test", 0: none; or
            images and labels of their own.
        rows, test_rows: so many training and test rows, chosen by `seed`; None: all that are left.
        device: where the bytes lie; None: the CPU.
    """
    if validation_from not in ("train", "test"):
        raise ConfigError(f"validation_from: expected train or test, got {validation_from!r}.")
    files = {"train": train, "test": test}
    taken = {"train": 0, "test": 0}
    if isinstance(validation, tuple):
        files["validation"] = validation
    elif isinstance(validation, int):
        taken[validation_from] = validation
    else:
        raise ConfigError(f"validation: expected a number of rows, got {validation!r}.")
    for name, (images, labels) in files.items():
        _check(name, images, labels, classes)
        if images.shape[1:] != train[0].shape[1:]:
            raise DataError(
                f"the training images are (height, width, channels) {tuple(train[0].shape[1:])}, "
                f"the {name} images {tuple(images.shape[1:])}; bring them to one size and mode."
            )
    chosen = {name: torch.arange(len(data[1])) for name, data in files.items()}
    # an order for each file: the test rows do not depend on how many training rows there are
    for number, (name, wanted) in enumerate((("train", rows), ("test", test_rows))):
        n, used = len(files[name][1]), taken[name]
        if used < 0 or not 1 <= (1 if wanted is None else wanted) <= n - used:
            asked = "at least 1" if wanted is None else wanted
            raise ConfigError(
                f"expected {asked} {name} and {used} validation rows of the {n} in the {name} "
                "file; ask for fewer, or for at least 1."
            )
        order = torch.randperm(n, generator=stream("split", seed, number))
        chosen[name] = order[used:][:wanted]
        if used:
            chosen["validation"], files["validation"] = order[:used], files[name]
    files = {name: (x.to(device), y.to(device)) for name, (x, y) in files.items()}
    loaders = {n: ImageLoader(files[n], prepare, index=chosen[n]) for n in files}
    # the first of the clean rows stand for all: in random order those of every class are there
    clean = loaders.pop("train")
    # black borders shift what enters each layer: BatchNorm statistics are those of such rows
    seen = ImageLoader(files["train"], augment, index=chosen["train"], seed=seed)
    train = picked(files["train"], chosen["train"])
    how = {"transform": augment, "normalise": (prepare.mean, prepare.std)}
    return {"train": train, **loaders, "clean": clean, "batchnorm": seen, **how}


def picked(data: Labelled, index: Tensor) -> Labelled:
    """These rows in the file's order; the file's own tensors where they are all of it."""
    if len(index) == len(data[1]):
        return data
    index = index.sort().values.to(data[0].device)
    return data[0].index_select(0, index), data[1].index_select(0, index)


def shares(n: int, *wanted: float) -> list[int]:
    """Rows of n from numbers below 1, which are shares, and from 1 on, which are rows.

    >>> shares(50, 0.1, 20)
    [5, 20]
    """
    if any(share < 0 or (share >= 1 and share != int(share)) for share in wanted):
        raise ConfigError(f"expected shares below 1 or whole numbers of rows, got {wanted}.")
    counts = [round(n * share) if share < 1 else int(share) for share in wanted]
    if sum(counts) >= n:
        raise ConfigError(
            f"expected fewer than the {n} rows that there are, got {counts}: none would be left to "
            "train on."
        )
    return counts


def _check(name: str, images: Tensor, labels: Tensor, classes: int) -> None:
    if len(images) != len(labels) or not len(labels):
        raise DataError(
            f"{name}: expected images and as many labels, got {len(images)} and {len(labels)}."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{name}: expected labels from 0 to {classes - 1}, found {low} to {high}; check "
            "classes= and the file."
        )
