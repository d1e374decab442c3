"""The user's own tensors, from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowland.errors import DataError, StoreError
from lowland.files import PathLike
from lowland.tensor_files import read_arrays, read_tensors
from lowland.zoo.splits import split_sizes


def tensors(
    path: PathLike, *, validation: float = 0.1, test: float = 0.2, seed: int = 0
) -> dict[str, Any]:
    """`x` (N, ...) and `y` (N, ...) of an .npz or .safetensors file, in three splits.

    Floating-point numbers become float32, integers int64. A floating-point `y` (N,) becomes (N, 1),
    as a regression's targets are; so store class labels as integers: `y.astype("int64")`.

    Args:
        path: the file. `x_test` with `y_test`, and `x_validation` with `y_validation`, are splits
            of their own where they are there.
        validation, test: shares (below 1) or numbers of examples, split off x and y by `seed`.

    >>> import tempfile
    >>> import numpy as np
    >>> path = Path(tempfile.mkdtemp()) / "own.npz"
    >>> np.savez(path, x=np.zeros((10, 3)), y=np.arange(10))
    >>> {name: tuple(x.shape) for name, (x, _) in tensors(path).items()}
    {'train': (7, 3), 'validation': (1, 3), 'test': (2, 3)}
    """
    path = Path(path)
    arrays = _read(path)
    pairs = {"train": _pair(path, arrays, "")}
    shares = {"validation": validation, "test": test}
    for part in shares:
        if {f"x_{part}", f"y_{part}"} & set(arrays):
            pairs[part] = _pair(path, arrays, f"_{part}")
    x, y = pairs["train"]
    missing = [part for part in shares if part not in pairs]
    counts = split_sizes(len(y), *(shares[part] for part in missing))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    for part, count in zip(missing, counts, strict=True):
        if count == 0:
            raise DataError(
                f"{path}: no examples for {part}; raise {part}=, or add x_{part} to it."
            )
        index, order = order[:count], order[count:]
        pairs[part] = x[index], y[index]
    if missing:
        pairs["train"] = x[order], y[order]
    return {part: pairs[part] for part in ("train", "validation", "test")}


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    if path.suffix != ".npz":
        raise DataError(f"{path}: expected an .npz or .safetensors file.")
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path.")
    try:
        return {name: torch.from_numpy(array) for name, array in read_arrays(path).items()}
    except (StoreError, TypeError) as error:  # torch has no text
        raise DataError(
            f"{path}: not an .npz of numbers, or a damaged one; write it with numpy.savez."
        ) from error


def _pair(path: Path, arrays: dict[str, Tensor], end: str) -> tuple[Tensor, Tensor]:
    missing = [name for name in (f"x{end}", f"y{end}") if name not in arrays]
    if missing:
        raise DataError(
            f"{path}: expected x{end} and y{end}, found {', '.join(sorted(arrays)) or 'nothing'}."
        )
    x, y = (_typed(arrays[f"{name}{end}"]) for name in ("x", "y"))
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y) or not len(x):
        raise DataError(
            f"{path}: expected x{end} (N, ...) and y{end} (N, ...), got {tuple(x.shape)} and "
            f"{tuple(y.shape)}."
        )
    if y.ndim == 1 and y.is_floating_point():
        y = y[:, None]
    return x, y


def _typed(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor.long()
