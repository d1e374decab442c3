"""The contract of records: to and from disk, and to a picture."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from lowland.errors import StoreError
from lowland.files import PathLike, replacing, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Record:
    """Base of all records: to and from disk, and to a picture.

    In `.json` files numbers come back as float64 or int64 tensors, in `.npz` files as they were.
    """

    figure: ClassVar[str] = ""  # the file of lowland.plots that draws it

    def save(self, path: PathLike) -> Path:
        """Writes the record, atomically; a path without ending becomes `.npz`."""
        path = Path(path)
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if path.suffix == ".json":
            body = {"record": type(self).__name__, **_lists(values)}
            write_text(path, json.dumps(body, indent=1) + "\n")
            return path
        path = _with_ending(path)
        arrays: dict[str, np.ndarray] = {}
        rest = _apart(values, "", arrays)
        header = json.dumps({"record": type(self).__name__, "fields": rest})
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{"record.json": np.array(header)}, **arrays)  # type: ignore[arg-type]
        return path

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Reads a record of this class; raises `StoreError` for damaged or foreign files."""
        path = _with_ending(Path(path))
        try:
            if path.suffix == ".json":
                body = json.loads(path.read_text(encoding="utf-8"))
                name, values = body.pop("record"), _tensors(body)
            else:
                # opened here: np.load leaves damaged files open
                with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                    header = json.loads(str(file["record.json"]))
                    name, values = header["record"], _together(header["fields"], file)
        except FileNotFoundError:
            raise StoreError(f"{path}: no such record; check the path.") from None
        except Exception as error:
            raise StoreError(f"{path}: not a record, or a damaged one ({error}).") from error
        if name != cls.__name__:
            raise StoreError(f"{path}: expected a {cls.__name__}, found a {name}.")
        try:
            return cls(**values)
        except TypeError as error:
            raise StoreError(f"{path}: a {name} of another version of lowland ({error}).") from None

    def plot(self, *, ax: Axes | None = None, **options: Any) -> Axes:
        """Draws the record with matplotlib (the `plots` extra) and returns the axes."""
        from lowland import plots

        return plots.draw(self.figure, self, ax=ax, **options)


def _with_ending(path: Path) -> Path:
    return path if path.suffix in (".json", ".npz") else path.with_name(f"{path.name}.npz")


def _lists(node: Any) -> Any:
    """Tensors made lists."""
    if isinstance(node, Tensor):
        return node.tolist()
    if isinstance(node, dict):
        return {key: _lists(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_lists(value) for value in node]
    return node


def _tensors(node: Any) -> Any:
    """Lists of numbers made tensors."""
    if isinstance(node, dict):
        return {key: _tensors(value) for key, value in node.items()}
    if isinstance(node, list) and not _holds(node, str | dict | None):
        integers = not _holds(node, float)
        return torch.tensor(node, dtype=torch.int64 if integers and node else torch.float64)
    if isinstance(node, list):
        return [_tensors(value) for value in node]
    return node


def _holds(node: Any, kinds: Any) -> bool:
    if isinstance(node, list):
        return any(_holds(value, kinds) for value in node)
    return isinstance(node, kinds)


def _apart(node: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Moves tensors into `arrays` under their path, and leaves the path in their place."""
    if isinstance(node, Tensor):
        node = node.detach().cpu()
        arrays[path] = (node.float() if node.dtype == torch.bfloat16 else node).numpy()
        return {"array": path}
    if isinstance(node, dict):
        body = {key: _apart(value, f"{path}/{key}", arrays) for key, value in node.items()}
        return {"dict": body}
    return node


def _together(node: Any, arrays: Any) -> Any:
    if isinstance(node, dict) and "array" in node:
        return torch.from_numpy(arrays[node["array"]])
    if isinstance(node, dict):
        return {key: _together(value, arrays) for key, value in node["dict"].items()}
    return node
