"""The sources of a run: fingerprints of its examples, model and task."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowland.artifacts import Source
from lowland.core.layout import ParamLayout
from lowland.runs.setup import Setup, is_loader
from lowland.runs.validation import SHARED
from lowland.train.model_state import model_state
from lowland.train.rng import fork_global_rng

MOST = 256  # examples that are read where they are not tensors
_FILES = ("files", "samples", "imgs", "paths")  # what data sets of files call their list


def sources_of(setup: Setup) -> dict[str, Source]:
    """The sources of a run by name: data/train, ..., model, task."""
    sources = {
        "model": _model(setup),
        "task": Source("task", setup.task, {"task": repr(setup.task)}),
    }
    for split in ("validation", "test"):
        sources[f"data/{split}"] = _split(setup, split)
    return sources | training_sources_of(setup)


def training_sources_of(setup: Setup) -> dict[str, Source]:
    """The sources of the training examples, data/train, data/clean and data/batchnorm; `-all` ends
    their own names where the validation examples are among them."""
    ending = "" if setup.held_out is None else "-all"
    splits = [split for split in ("train", *SHARED) if split in setup.data]
    return {f"data/{split}": _split(setup, split, ending) for split in splits}


def _split(setup: Setup, split: str, ending: str = "") -> Source:
    examples = setup.data[split]
    return Source(f"data/{split}{ending}", examples, content_of(examples))


def _model(setup: Setup) -> Source:
    factory, model = setup.config.model, setup.model(0)
    structure = hashlib.blake2b(str(model).encode(), digest_size=8)
    structure.update(ParamLayout(model).fingerprint.encode())
    return Source(
        "model",
        None,
        {
            "name": factory.name,
            "structure": structure.hexdigest(),
            "first weights": hash_of(model_state(model)),
        },
    )


def content_of(data: Any) -> dict[str, Any]:
    """What distinguishes the examples of a split.

    Its own `fingerprint` where it has one; else all tensors; else its length and 256 examples, with
    sizes and times of the files that it lists. Random augmentation is left out of it: what is read
    is read under a fixed seed.

    >>> content_of((torch.zeros(3, 2), torch.ones(3)))["by"]
    'all 3 examples'
    """
    own = getattr(data, "fingerprint", None)
    if own is not None:
        return {"by": "its own fingerprint", "hash": str(own() if callable(own) else own)}
    if isinstance(data, Tensor | tuple | Mapping):
        return {"by": f"all {_length(data):,} examples", "hash": hash_of(data)}
    with fork_global_rng(0):
        examples = list(itertools.islice(_examples(data), MOST))
    count = _count(data)
    content = {"by": f"{len(examples)} of {count} examples", "hash": hash_of(examples)}
    files = _file_states(data)
    return content | ({"files": files} if files else {})


def hash_of(value: Any) -> str:
    """16 hexadecimal digits of nested tensors, arrays and plain values.

    >>> hash_of({"a": torch.ones(2)}) == hash_of({"a": torch.zeros(2)})
    False
    """
    hashed = hashlib.blake2b(digest_size=8)
    for part in _parts(value):
        hashed.update(part)
    return hashed.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key in value:
            yield repr(key).encode()
            yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        yield b"[%d" % len(value)
        for each in value:
            yield from _parts(each)
    elif isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        yield f"{plain.dtype}{tuple(plain.shape)}".encode()
        yield plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b""
    elif isinstance(value, np.ndarray) or hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        yield f"{array.dtype}{array.shape}".encode()
        yield array.tobytes()
    elif isinstance(value, str | bytes | int | float | bool | None):
        yield repr(value).encode()
    else:  # what it holds is not known
        yield type(value).__qualname__.encode()


def _examples(data: Any) -> Iterator[Any]:
    """Examples of a data set, evenly spaced, or the first batches of a loader."""
    if is_loader(data):
        read = 0
        for batch in data:
            yield batch
            read += max(1, _length(batch))
            if read >= MOST:
                return
    else:
        step = max(1, len(data) // MOST)
        for index in range(0, len(data), step):
            yield data[index]


def _length(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    values: Iterable[Any] = batch.values() if isinstance(batch, Mapping) else batch
    with suppress(TypeError):
        return max((_length(value) for value in values), default=0)
    return 0


def _count(data: Any) -> str:
    with suppress(TypeError):
        return f"{len(data):,} batches of" if is_loader(data) else f"{len(data):,}"
    return "many"


def _file_states(data: Any) -> str:
    """A hash of sizes and times of the files that a data set lists; empty where it lists none."""
    lists = (getattr(data, name, None) for name in _FILES)
    files: list[Any] = next((each for each in lists if isinstance(each, list)), [])
    hashed = hashlib.blake2b(digest_size=8)
    for each in files:
        path = each[0] if isinstance(each, tuple) and each else each
        if isinstance(path, str | os.PathLike):
            with suppress(OSError):
                state = Path(path).stat()
                hashed.update(f"{path} {state.st_size} {state.st_mtime_ns}".encode())
    return hashed.hexdigest() if files else ""
