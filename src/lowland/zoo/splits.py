"""Splits of decoded images by seed, with the training transform and clean examples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowland import checks
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
    train_count: int | None = None,
    test_count: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """The mapping that a configuration's `data` returns, of training and test images.

    Args:
        train, test: images and labels, of two files.
        classes: labels lie in 0 ... classes - 1.
        prepare, augment: how images become floats in evaluation and in training.
        validation: how many examples are split off by `seed` from `validation_from`, "train" or
            "test"; or images and labels of their own.
        train_count, test_count: how many training and test examples, chosen by `seed`; None: all
            that are left.
        device: where the bytes lie; None: the CPU.
    """
    checks.choice("validation_from", validation_from, ("train", "test"))
    files = {"train": train, "test": test}
    validation_counts = {"train": 0, "test": 0}
    if isinstance(validation, tuple):
        files["validation"] = validation
    elif isinstance(validation, int):
        validation_counts[validation_from] = validation
    else:
        raise ConfigError(f"validation: expected a number of examples, got {validation!r}.")
    for name, (images, labels) in files.items():
        _check(name, images, labels, classes)
        if images.shape[1:] != train[0].shape[1:]:
            raise DataError(
                f"the training images are (height, width, channels) {tuple(train[0].shape[1:])}, "
                f"the {name} images {tuple(images.shape[1:])}; bring them to one size and mode."
            )
    indices = {name: torch.arange(len(data[1])) for name, data in files.items()}
    # an order for each file: the test examples do not depend on the number of training examples
    for number, (name, count) in enumerate((("train", train_count), ("test", test_count))):
        n, used = len(files[name][1]), validation_counts[name]
        if used < 0 or not 1 <= (1 if count is None else count) <= n - used:
            expected = "at least 1" if count is None else count
            raise ConfigError(
                f"expected {expected} {name} and {used} validation examples of the {n} in the "
                f"{name} file; choose fewer, or at least 1."
            )
        order = torch.randperm(n, generator=stream("split", seed, number))
        indices[name] = order[used:][:count]
        if used:
            indices["validation"], files["validation"] = order[:used], files[name]
    files = {name: (x.to(device), y.to(device)) for name, (x, y) in files.items()}
    loaders = {n: ImageLoader(files[n], prepare, index=indices[n]) for n in files}
    # in random order, so that the first clean examples contain every class
    clean = loaders.pop("train")
    # black borders shift each layer's inputs: BatchNorm statistics are those of augmented images
    augmented = ImageLoader(files["train"], augment, index=indices["train"], seed=seed)
    train = select_images(files["train"], indices["train"])
    preparation = {"transform": augment, "normalise": (prepare.mean, prepare.std)}
    return {"train": train, **loaders, "clean": clean, "batchnorm": augmented, **preparation}


def select_images(data: Labelled, index: Tensor) -> Labelled:
    """These images in the file's order; all of them: the file's own tensors."""
    if len(index) == len(data[1]):
        return data
    index = index.sort().values.to(data[0].device)
    return data[0].index_select(0, index), data[1].index_select(0, index)


def split_sizes(n: int, *shares: float) -> list[int]:
    """Numbers of examples out of n: numbers below 1 are shares, others are counts.

    >>> split_sizes(50, 0.1, 20)
    [5, 20]
    """
    if any(share < 0 or (share >= 1 and share != int(share)) for share in shares):
        raise ConfigError(f"expected shares below 1 or whole numbers of examples, got {shares}.")
    counts = [round(n * share) if share < 1 else int(share) for share in shares]
    if sum(counts) >= n:
        raise ConfigError(
            f"expected fewer than the {n} examples that there are, got {counts}: none would be "
            "left to train on."
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
