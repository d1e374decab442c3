"""Tensors, arrays and nested state in files, without pickle.

A *tree* is any nesting of dicts, lists, tuples, numbers, strings, None and tensors: the tensors are
stored by the safetensors format, everything else as JSON in its header.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lowland.errors import LowlandError, StoreError
from lowland.files import PathLike, atomic_write
from lowland.schema import MAX_TEXT, parse_json, require

FORMAT = "lowland-1"
CHECKSUM = "lowland-crc32"


def write_tensors(path: PathLike, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes named tensors and string metadata as one safetensors file, atomically; a checksum of
    both is added to the metadata."""
    stored = _storable(tensors)
    with atomic_write(path) as temporary:
        save_sorted(stored, temporary, metadata | {CHECKSUM: _checksum(stored, metadata)})


def save_sorted(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Writes a safetensors file whose bytes are a function of its content: the order of metadata,
    which the library draws anew each time, is by name."""
    save_file(tensors, path, metadata=metadata)
    with open(path, "rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:  # another way to write the same: as it was
            return
        file.seek(8)
        file.write(text.ljust(length))


def read_tensors(path: PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file: its tensors, mapped into memory, and its metadata.

    Raises `StoreError` where the file has a checksum that does not fit.
    """
    with open_safetensors(path) as file, restoring(path, "tensors"):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    expected = metadata.get(CHECKSUM)  # without one, nothing of a large file is read yet
    if expected is not None and expected != _checksum(tensors, metadata):
        raise StoreError(
            f"{path}: damaged, its checksum does not fit; make it again or name another file."
        )
    return tensors, metadata


@contextmanager
def open_safetensors(path: PathLike) -> Iterator[Any]:
    """`safetensors.safe_open` whose failures are a `StoreError` that names the file."""
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"{path}: no such file; check the path.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except SafetensorError as error:
        raise StoreError(
            f"{path}: not a safetensors file, or a damaged one ({error}); "
            "make it again or name another file."
        ) from error


def write_arrays(path: PathLike, arrays: dict[str, np.ndarray], *, expansion: int) -> None:
    """Writes an .npz file, atomically: compressed, unless `read_arrays` would refuse it then."""
    total = sum(array.nbytes for array in arrays.values())
    with atomic_write(path) as temporary:
        for save in (np.savez_compressed, np.savez):
            with open(temporary, "wb") as file:
                save(file, **arrays)  # type: ignore[arg-type]
            if total <= _most_bytes(temporary, expansion):
                break


def read_arrays(path: PathLike, *, expansion: int | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; what their headers ask for is compared with the file first.

    Args:
        expansion: how many times the file's size all arrays together may take, where that is more
            than 64 MiB; None: as much as the file really holds.

    Raises:
        StoreError: a damaged file, Python objects, or arrays larger than that.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"{path}: no such file; check the path.")
    try:
        # opened here: NumPy leaves damaged files open
        with open(path, "rb") as raw, zipfile.ZipFile(raw) as archive:
            total = sum(_array_bytes(archive, member) for member in archive.infolist())
            if expansion is not None and total > _most_bytes(path, expansion):
                raise ValueError(f"{total:,} bytes of arrays in a file of {path.stat().st_size:,}")
            raw.seek(0)
            with np.load(raw, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and NumPy have errors of many kinds
        raise StoreError(
            f"{path}: not an .npz file of numbers, or a damaged one ({str(error)[:200]}); make it "
            "again or name another file."
        ) from error


def _most_bytes(file: Path, expansion: int) -> int:
    return max(64 << 20, expansion * file.stat().st_size)


def _array_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """How many bytes an array takes by its header, which must be what the archive holds."""
    with archive.open(member) as file:
        first = np.lib.format.read_magic(file) == (1, 0)
        header = np.lib.format
        read = header.read_array_header_1_0 if first else header.read_array_header_2_0
        shape, _, dtype = read(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size < 0 or file.tell() + size != member.file_size:
            raise ValueError(f"{member.filename}: its header is not that of what it holds")
    return size


def save_tree(path: PathLike, tree: Any, *, kind: str) -> None:
    """Writes a tree atomically. `kind` says what it is, and `load_tree` insists on it.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "state.safetensors"
    >>> save_tree(path, {"step": 3, 7: (1.5, None), "w": torch.ones(2)}, kind="demo")
    >>> load_tree(path, kind="demo")
    {'step': 3, 7: (1.5, None), 'w': tensor([1., 1.])}
    """
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_encode(tree, tensors))
    if len(structure) > MAX_TEXT:
        raise StoreError(
            f"{path}: {len(structure):,} bytes of numbers and names beside the tensors, more than "
            f"{MAX_TEXT:,}; put them into tensors."
        )
    write_tensors(path, tensors, {"format": FORMAT, "kind": kind, "tree": structure})


def load_tree(path: PathLike, *, kind: str, form: Any = Any) -> Any:
    """Reads what `save_tree` wrote.

    Args:
        kind: what it must be. form: of the tree, see `lowland.schema`.

    Raises:
        StoreError: a damaged or foreign file, or one of another version.
    """
    tensors, metadata = read_tensors(path)
    version = metadata.get("format", "")
    if version != FORMAT and version.startswith("lowland-"):
        raise StoreError(
            f"{path}: its format is {version[:60]!r}, this version of lowland reads {FORMAT!r}; "
            "name another file, or use the version that wrote it."
        )
    if version != FORMAT or metadata.get("kind") != kind:
        other = metadata.get("kind") or "a file that lowland did not write"
        raise StoreError(f"{path}: expected {kind}, found {other[:60]}; name another file.")
    structure = parse_json(metadata.get("tree", ""), source=path)
    try:
        tree = _decode(structure, tensors)
    except (LookupError, TypeError, ValueError) as error:  # its checksum fits, and its form not
        raise StoreError(
            f"{path}: not a tree of tensors that lowland wrote; name another file."
        ) from error
    require(tree, form, source=path)
    return tree


@contextmanager
def restoring(path: PathLike, what: str) -> Iterator[None]:
    """Turns what goes wrong when a state from a file is taken up into a `StoreError`.

    For states whose parts torch checks: those of optimizers, schedules and generators.
    """
    try:
        yield
    except LowlandError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise StoreError(
            f"{path}: no {what} that this version of lowland can go on from "
            f"({type(e).__name__}: {str(e).partition(chr(10))[0]:.200}); name another file, or "
            "delete it to start anew."
        ) from e


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors on the CPU, contiguous, and no two in one storage, as the format needs."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        if pointer in seen:
            tensor = tensor.clone()
        seen.add(pointer)
        out[name] = tensor
    return out


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    notes = sorted(item for item in metadata.items() if item[0] != CHECKSUM)
    crc = zlib.crc32(json.dumps(notes).encode())
    for name in sorted(tensors):
        crc = zlib.crc32(_bytes(tensors[name]).numpy().data, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def _encode(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = node
        return {"tensor": name}
    if isinstance(node, dict):
        # keys keep their type (optimizers number their parameters), hence pairs
        return {"dict": [[_scalar(key), _encode(value, tensors)] for key, value in node.items()]}
    if isinstance(node, tuple):
        return {"tuple": [_encode(value, tensors) for value in node]}
    if isinstance(node, list):
        return [_encode(value, tensors) for value in node]
    return _scalar(node)


def _scalar(node: Any) -> Any:
    if isinstance(node, np.generic):
        node = node.item()
    if node is None or type(node) in (bool, int, float, str):
        return node
    raise TypeError(f"cannot be stored without pickle: {type(node).__name__}")


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_decode(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    ((form, body),) = node.items()
    if form == "tensor":
        return tensors[body]
    if form not in ("tuple", "dict") or not isinstance(body, list):
        raise ValueError(f"unknown form {form}")
    if form == "tuple":
        return tuple(_decode(value, tensors) for value in body)
    return {key: _decode(value, tensors) for key, value in body}


def tensor_checksum(*tensors: Tensor) -> str:
    """A checksum of tensors' bytes.

    >>> (
    ...     tensor_checksum(torch.zeros(2)) == tensor_checksum(torch.zeros(2)),
    ...     tensor_checksum(torch.ones(2)),
    ... )
    (True, 'd5065190')
    """
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(_bytes(tensor).numpy().data, crc)
    return f"{crc:08x}"


def _bytes(tensor: Tensor) -> Tensor:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel() == 1:  # an expanded number has a stride of 0, which no view of bytes takes
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


def same_tree(a: Any, b: Any) -> bool:
    """Whether two trees are equal, tensors bit by bit.

    >>> same_tree({"w": torch.ones(2)}, {"w": torch.ones(2)})
    True
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bytes(a), _bytes(b))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_tree(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(same_tree(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
