"""Weights on disk as the state dict of a model, with what a state dict leaves out beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from lowland.core import ParamLayout, Point
from lowland.core.names import clean, clean_names
from lowland.errors import StoreError
from lowland.schema import parse_json, require
from lowland.tensor_files import read_tensors, write_tensors


def save_point(
    file: Path, others: Path, model: nn.Module, layout: ParamLayout, point: Point
) -> None:
    """Writes a point as the state dict of `model`: what the point lacks is the model's own.

    `model.load_state_dict(safetensors.torch.load_file(path))` takes the file.

    Args:
        file: of the state dict. others: of buffers that are no part of one (`persistent=False`);
            it is written where there are any.
    """
    buffers = dict(point.buffers or {})
    tensors = _state_dict(model, buffers | layout.unflatten(point.weights))
    stored = set(clean_names(tensors).values())
    apart = {key: buffer for key, buffer in buffers.items() if key not in stored}
    others.unlink(missing_ok=True)
    if apart:
        write_tensors(others, apart, {})
    notes = {
        "fingerprint": layout.fingerprint,
        "buffers": json.dumps([key for key in buffers if key in stored]),
    }
    write_tensors(file, tensors, notes)


def load_point(file: Path, others: Path, layout: ParamLayout) -> Point:
    """Reads weights of this model, with the buffers that were saved with them."""
    tensors, notes = read_tensors(file)
    tensors = clean(tensors)
    names = parse_json(notes.get("buffers", ""), source=file)
    require(names, list[str], source=file)
    missing = [key for key in names if key not in tensors]
    if missing:
        raise StoreError(f"{file}: buffer {missing[0][:80]!r} is missing; name another file.")
    buffers = {key: tensors.pop(key) for key in names}
    if others.is_file():
        buffers |= read_tensors(others)[0]
    return Point(layout.flatten(tensors), buffers)


def _state_dict(model: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a model with these parameters and buffers, by their clean names; where
    tensors are tied, under each of their names."""
    every = {
        name: tensor
        for iterate in (model.named_parameters, model.named_buffers)
        for name, tensor in iterate(remove_duplicate=False)
    }
    short = clean_names(every)
    replaced = {id(every[name]): values[short[name]] for name in every if short[name] in values}
    return {
        name: replaced.get(id(every.get(name)), tensor)
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, Tensor)  # a module may have other state
    }
