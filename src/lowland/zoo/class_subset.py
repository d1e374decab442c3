"""Some classes of a data set; the others are unknown to a network that is trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lowland.errors import ConfigError, DataError
from lowland.zoo.images import ImageLoader
from lowland.zoo.load_splits import load_splits


def class_subset(data: str | Mapping[str, Any], *, classes: Sequence[int]) -> dict[str, Any]:
    """The examples of some classes, in every split; the labels are 0, 1, ... in the order of
    `classes`.

    For a run on some classes of a data set, the other classes are an out-of-distribution set of
    `lowland compare --ood`.

    Args:
        data: `lowland.zoo:digits`, another callable's name, {name: ..., args: {...}}, or the
            splits themselves: (inputs, labels) as tensors, or the zoo's loaders.
        classes: labels in `data`.

    Raises:
        ConfigError: a class that occurs twice, or has no example in a split.
        DataError: splits of another form.

    >>> train, ood = (class_subset("lowland.zoo:digits", classes=c) for c in (range(8), [8, 9]))
    >>> train["test"][1].unique().tolist(), ood["test"][1].unique().tolist()
    ([0, 1, 2, 3, 4, 5, 6, 7], [0, 1])
    """
    labels = list(classes)
    if not labels or len(set(labels)) < len(labels) or not all(type(c) is int for c in labels):
        raise ConfigError(f"classes: expected labels, each of them once, got {labels}.")
    splits = load_splits(data)
    for name in ("train", "validation", "test", "clean", "batchnorm"):
        if name in splits:
            splits[name] = _select_classes(splits[name], labels, name)
    numbers = ", ".join(map(str, labels))
    return splits | {"name": f"{splits.get('name', 'classes')} {numbers}"}


def _select_classes(split: Any, classes: list[int], name: str) -> Any:
    if isinstance(split, ImageLoader):
        images, labels = split.images, split.labels
        places, new = _numbered(labels[split.index.to(labels.device)], classes, name)
        new_labels = torch.zeros_like(labels)
        index = split.index[places.to(split.index.device)]
        new_labels[index.to(labels.device)] = new
        data = images, new_labels
        return ImageLoader(
            data, split.prepare, index=index, batch_size=split.batch_size, seed=split.seed
        )
    pair = isinstance(split, tuple) and len(split) == 2
    if not pair or not all(isinstance(part, Tensor) for part in split) or split[1].ndim != 1:
        raise DataError(
            f"{name}: expected (inputs, labels), tensors with labels (N,), or a loader of the "
            f"zoo's, got {type(split).__name__}; choose classes in a callable of your own."
        )
    index, new = _numbered(split[1], classes, name)
    return split[0][index.to(split[0].device)], new


def _numbered(labels: Tensor, classes: list[int], name: str) -> tuple[Tensor, Tensor]:
    """The indices of the examples of these classes, and their new labels."""
    absent = [c for c in classes if not bool((labels == c).any())]
    if absent:
        raise ConfigError(
            f"classes: {name} has no example of {', '.join(map(str, absent))}; it has "
            f"{', '.join(map(str, labels.unique().tolist()))}."
        )
    new = torch.full_like(labels, -1)
    for number, label in enumerate(classes):
        new[labels == label] = number
    index = (new >= 0).nonzero()[:, 0]
    return index, new[index]
