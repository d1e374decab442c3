"""Validation examples taken from the training examples: at random, by class or by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from lowland.core.seeds import stream
from lowland.errors import ConfigError, DataError
from lowland.runs.sections import Validation

SHARED = (
    "clean",
    "batchnorm",
)  # splits with the training split's examples, in their order


def with_validation(data: Mapping[str, Any], settings: Validation) -> dict[str, Any]:
    """The splits of data with "validation" taken from "train", and from splits like it.

    Args:
        data: "train" is a tuple or dict of tensors, or a map-style data set. "groups" names the
            group of each example, for `by: group`.

    Raises:
        ConfigError: data that have validation examples already. DataError: examples that cannot be
            indexed, or without labels or groups.

    >>> x, y = torch.arange(10.0)[:, None], torch.arange(10) % 2
    >>> splits = with_validation({"train": (x, y)}, Validation(share=0.4, by="stratified"))
    >>> sorted(splits["validation"][1].tolist()), len(splits["train"][1])
    ([0, 0, 1, 1], 6)
    """
    if "validation" in data:
        raise ConfigError(
            "validation: the data give validation examples already; leave the section out, or have "
            "them give train and test alone."
        )
    train = data["train"]
    size = _length(train)
    indices = _validation_indices(train, data, size, settings)
    rest = np.setdiff1d(np.arange(size), indices)
    splits = dict(data)
    for name in ("train", *SHARED):
        if name in data and _length(data[name]) == size:
            splits[name] = _take(data[name], rest)
    splits["validation"] = _take(data.get("clean", train), indices)
    splits.pop("groups", None)
    return splits


def with_all_examples(data: Mapping[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
    """The splits of data with the validation examples among the training examples.

    Args:
        data: with "validation". original: the splits before it was held out, which come back as
            they were; where it was there already, its examples follow those of "train" and "clean".

    Raises:
        DataError: examples of loaders, or of other kinds than the training examples.

    >>> original = {"train": (torch.arange(3),)}
    >>> data = {"train": (torch.arange(2),), "validation": (torch.arange(2, 3),)}
    >>> with_all_examples(data, original)["train"]
    (tensor([0, 1, 2]),)
    >>> data = {"train": torch.ones(2), "validation": torch.zeros(1)}
    >>> with_all_examples(data, data)["train"]
    tensor([1., 1., 0.])
    """
    if "validation" not in original:
        return {**data, **{name: original[name] for name in ("train", *SHARED) if name in original}}
    names = [name for name in ("train", "clean") if name in data]
    return {**data, **{name: _concatenate(data[name], data["validation"]) for name in names}}


def _concatenate(first: Any, second: Any) -> Any:
    """The examples of two splits."""
    for examples in (first, second):
        _length(examples)  # or they cannot be joined
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    if isinstance(first, tuple) and isinstance(second, tuple) and len(first) == len(second):
        return tuple(map(_concatenate, first, second))
    if isinstance(first, Mapping) and isinstance(second, Mapping) and {*first} == {*second}:
        return {name: _concatenate(first[name], second[name]) for name in first}
    resident = (Tensor, tuple, Mapping)
    if isinstance(first, resident) or isinstance(second, resident):
        raise DataError(
            f"average.retrain: expected training and validation examples of one kind, got "
            f"{type(first).__name__} and {type(second).__name__}; give both as tensors, or both as "
            "data sets."
        )
    return ConcatDataset([first, second])


def _validation_indices(
    train: Any, data: Mapping[str, Any], size: int, settings: Validation
) -> np.ndarray:
    """The indices of the examples that are held out, in order."""
    generator = stream("validation examples", settings.seed)

    def shuffled(values: np.ndarray) -> np.ndarray:
        order: np.ndarray = torch.randperm(len(values), generator=generator).numpy()
        return np.take(values, order)

    target = round(settings.share * size)
    if not 0 < target < size:
        raise DataError(
            f"validation: a share of {settings.share} of {size} examples leaves none on one side; "
            "take another."
        )
    if settings.by == "random":
        return np.sort(shuffled(np.arange(size))[:target])
    values = _groups(data, size) if settings.by == "group" else _labels(train, size)
    kinds = np.unique(values)
    if settings.by == "group":
        groups: list[Any] = []
        for kind in shuffled(kinds):
            if np.isin(values, groups).sum() >= target:
                break
            groups.append(kind)
        if len(groups) == len(kinds):
            raise DataError("validation: one group holds nearly all examples; split otherwise.")
        return np.flatnonzero(np.isin(values, groups))
    each = [shuffled(np.flatnonzero(values == kind)) for kind in kinds]
    return np.sort(np.concatenate([part[: round(settings.share * len(part))] for part in each]))


def _labels(train: Any, size: int) -> np.ndarray:
    labels = getattr(train, "targets", None)
    if labels is None and isinstance(train, tuple):
        labels = train[-1]
    if labels is None or len(labels) != size or np.asarray(labels).ndim != 1:
        raise DataError(
            "validation: `by: stratified` needs a class for each example: give (inputs, labels), "
            "or a data set with `targets`."
        )
    return np.asarray(labels)


def _groups(data: Mapping[str, Any], size: int) -> np.ndarray:
    groups = data.get("groups")
    if groups is None or len(groups) != size:
        raise DataError(
            f"validation: `by: group` needs 'groups' in the data, the group of each of {size} "
            "training examples."
        )
    return np.asarray(groups)


def _length(data: Any) -> int:
    if isinstance(data, tuple | Mapping):
        tensors = data.values() if isinstance(data, Mapping) else data
        return len(next(iter(tensors)))
    if isinstance(data, Tensor) or (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        return len(data)
    raise DataError(
        "validation: examples of a loader cannot be split, nor joined for average.retrain; give "
        "tensors or a data set, or a validation split of your own."
    )


def _take(data: Any, indices: np.ndarray) -> Any:
    index = torch.from_numpy(indices)
    if isinstance(data, tuple):
        return tuple(each[index] for each in data)
    if isinstance(data, Mapping):
        return {name: each[index] for name, each in data.items()}
    if isinstance(data, Tensor):
        return data[index]
    source: Dataset[Any] = data
    return Subset(source, indices.tolist())
