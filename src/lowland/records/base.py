"""The contract of records: to and from disk, and to a picture."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_type_hints

import numpy as np
import torch
from torch import Tensor

from lowland.errors import DataError, StoreError
from lowland.files import PathLike, write_text
from lowland.schema import MAX_TEXT, mismatch, parse_json, require, require_format
from lowland.tensor_files import read_arrays, write_arrays

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMAT = "lowland-record-1"
_HEADER = "record.json"  # of an .npz file
_FEW = 4  # numbers that are printed
_EXPANSION = 32  # how many times its file a record may take in memory


@dataclass(frozen=True, eq=False)
class Record:
    """Base class of all records: saving, loading and plotting.

    In `.json` files numbers come back as float64 or int64 tensors, in `.npz` files as they were.
    """

    figure: ClassVar[str] = ""  # the file of lowland.plots that draws it

    def __str__(self) -> str:
        """A line for each field: numbers and texts as they are, of larger tensors the shape."""
        values = {f.name: _summary(getattr(self, f.name)) for f in fields(self)}
        width = max(map(len, values), default=0)
        lines = [f"  {name:<{width}}  {text}" for name, text in values.items() if text]
        return "\n".join([type(self).__name__, *lines])

    def save(self, path: PathLike) -> Path:
        """Writes the record, atomically; a path without ending becomes `.npz`."""
        path = Path(path)
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        kind = {"format": FORMAT, "record": type(self).__name__}
        if path.suffix == ".json":
            text = json.dumps(kind | _lists(values), indent=1) + "\n"
            if len(text) > MAX_TEXT:
                raise StoreError(f"{path}: {len(text):,} letters of JSON; save it as .npz.")
            write_text(path, text)
            return path
        path = _with_ending(path)
        arrays: dict[str, np.ndarray] = {}
        header = json.dumps(kind | {"fields": _apart(values, "", arrays)})
        write_arrays(path, {_HEADER: np.array(header)} | arrays, expansion=_EXPANSION)
        return path

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Reads a record of this class; raises `StoreError` for damaged or foreign files."""
        path = _with_ending(Path(path))
        if not path.is_file():
            raise StoreError(f"{path}: no such record; check the path.")
        try:
            read = _read_json if path.suffix == ".json" else _read_npz
            kind, values = read(path)
        except Exception as error:  # of JSON, zip files, NumPy and torch
            reason = str(error).removeprefix(f"{path}: ").partition("; ")[0][:300]
            raise StoreError(
                f"{path}: not a record, or a damaged one ({reason}); make it again or name another."
            ) from error
        version, name = kind["format"], kind["record"]
        require_format(version, FORMAT, source=path)
        if name != cls.__name__:
            raise StoreError(f"{path}: expected a {cls.__name__}, found a {name!s:.60}.")
        forms = get_type_hints(cls)
        for field, value in values.items():  # in JSON an empty list has no type
            empty = isinstance(value, Tensor) and value.shape == (0,)
            if empty and field in forms and mismatch([], forms[field]) is None:
                values[field] = []
        require(values, cls, source=path)
        try:
            return cls(**values)
        except (DataError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: its values do not go together ({error}).") from error

    def plot(self, *, ax: Axes | None = None, **options: Any) -> Axes:
        """Draws the record with matplotlib (the `plots` extra) and returns the axes."""
        from lowland import plots

        return plots.draw(self.figure, self, ax=ax, **options)


def _summary(value: Any) -> str:
    """A field in at most a line; empty where it is None.

    >>> _summary(torch.tensor([0.05])), _summary(torch.ones(3, 2)), _summary({"a": 1.0, "b": [2]})
    ('0.05', '(3, 2) torch.float32', 'a 1, b (list of 1)')
    """
    if value is None:
        return ""
    if isinstance(value, Tensor):
        if value.numel() > _FEW:
            return f"{tuple(value.shape)} {value.dtype}"
        return ", ".join(f"{number:.6g}" for number in value.flatten().tolist())
    if isinstance(value, dict):
        return ", ".join(f"{key} {_summary(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return f"(list of {len(value)})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _with_ending(path: Path) -> Path:
    return path if path.suffix in (".json", ".npz") else path.with_name(f"{path.name}.npz")


def _read_json(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the record is, and its fields; files from before there was a format name none."""
    if path.stat().st_size > MAX_TEXT:
        raise ValueError(f"more than {MAX_TEXT:,} bytes of text")
    body = parse_json(path.read_bytes(), source=path)
    kind = {"record": body.pop("record"), "format": body.pop("format", FORMAT)}
    return kind, _tensors(body)


def _read_npz(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    arrays = read_arrays(path, expansion=_EXPANSION)
    header = parse_json(str(arrays.pop(_HEADER)), source=path)
    values = _together(header["fields"], arrays)
    require(values, dict[str, Any], source=path)
    return {"record": header["record"], "format": header.get("format", FORMAT)}, values


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


def _together(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(node, dict):
        return node
    ((form, body),) = node.items()
    if form == "array":
        return torch.from_numpy(arrays[body])
    if form != "dict":
        raise ValueError(f"unknown form {form}")
    return {key: _together(value, arrays) for key, value in body.items()}
