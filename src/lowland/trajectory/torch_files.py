"""Files that `torch.save` wrote: what is in them, read without running code that they may name."""

from __future__ import annotations

import pickle
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lowland.errors import StoreError

# where training scripts put a state dict
KEYS = ("state_dict", "model_state_dict", "model", "module")
# where Lightning's WeightAveraging puts the iterate: its "state_dict" is an average already
ITERATE = "current_model_state"
_ZIP = b"PK\x03\x04"  # how torch's files have begun since 1.6
# what makes tensors of the bytes in a file
_TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
_REBUILT = "torch._tensor._rebuild"  # what makes tensors of other libraries' classes
_REPEATED = 64 << 20  # bytes of a tensor whose strides repeat its values
_TRUST = (
    "if you trust it, convert it with run_pickled_code=True (lowland convert --run-pickled-code), "
    "where the packages that wrote it are installed"
)


class Stored(NamedTuple):
    """The tensors of a file as they are in it, and what a reader should know."""

    tensors: dict[str, Tensor]
    key: str | None = None  # where in the file they are
    twins: tuple[str, ...] = ()  # where it has other tensors of the same names
    left_out: tuple[str, ...] = ()  # names of what is no tensor

    @property
    def choice(self) -> str | None:
        """Which of several sets of weights was taken, in words."""
        if not self.twins:
            return None
        average = " (an average already)" if self.key == ITERATE else ""
        return (
            f"the checkpoints hold several sets of weights: {self.key!r} was taken, and not "
            f"{', '.join(map(repr, self.twins))}{average}; choose with key= (--key)."
        )


def read_torch(path: Path) -> Any:
    """The content of a torch file that needs no pickled code."""
    if not path.is_file():
        raise StoreError(f"{path}: no such file; check the path.")
    with open(path, "rb") as file:
        magic = file.read(len(_ZIP))
    try:
        mapped = zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # an end that names several disks
        mapped = False
    if not magic or (magic == _ZIP and not mapped):
        raise StoreError(
            f"{path}: the file is cut off ({path.stat().st_size} bytes are left); copy it again, "
            "or leave it out."
        )
    try:
        # files in torch's format before 1.6 cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise StoreError(
            f"{path}: does not load with weights_only=True: it is damaged, or holds pickled "
            "objects, which run code when they are read. `lowland convert` writes the weights of "
            "a folder of such files without running any; or, if you trust it, save its state dict "
            "alone: safetensors.torch.save_file(torch.load(path, weights_only=False)"
            "['state_dict'], 'new.safetensors')."
        ) from error
    except Exception as error:
        raise StoreError(
            f"{path}: damaged, or no torch file ({type(error).__name__}); copy it again, or leave "
            "it out."
        ) from error


class Unread:
    """Stands for an object whose class was not imported."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Takes a list's entry."""


class _Unpickler(pickle.Unpickler):
    """Makes tensors and plain data; of anything else, an `Unread` with its name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in _TENSORS:
            return _alone(getattr(torch._utils, name))
        dtype = getattr(torch, name, None) if module == "torch" else None
        return dtype if isinstance(dtype, torch.dtype) else type(f"{module}.{name}", (Unread,), {})


def _alone(function: Callable[..., Any]) -> Callable[..., Any]:
    # pickles may set attributes of what they are given: not those of torch's own functions
    return lambda *args: function(*args)


def read_without_code(path: Path) -> Any:
    """The content of a torch file in which objects of other classes are `Unread`.

    No class is imported and no function called but the few that make tensors, so that the weights
    beside pickled hyperparameters can be read from files that nobody vouches for.

    Raises:
        StoreError: as `read_torch`; and files in torch's format before 1.6 with pickled objects.

    >>> import argparse, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "last.ckpt"
    >>> torch.save({"state_dict": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, path)
    >>> content = read_without_code(path)
    >>> content["state_dict"], type(content["args"]).__name__
    ({'w': tensor([1., 1.])}, 'argparse.Namespace')
    """
    try:
        return read_torch(path)
    except StoreError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
    reader = types.ModuleType("reader")
    reader.Unpickler = _Unpickler  # type: ignore[attr-defined]
    reader.UnpicklingError = pickle.UnpicklingError  # type: ignore[attr-defined]
    try:
        if not _is_plain_zip(path):  # TorchScript must not get to torch.load
            raise pickle.UnpicklingError("not in torch's format since 1.6")
        return torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=reader, mmap=True
        )
    except Exception as error:
        raise StoreError(
            f"{path}: damaged, or its weights cannot be told from its pickled objects; copy it "
            f"again, or {_TRUST}."
        ) from error


def _is_plain_zip(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return not any(name.endswith("constants.pkl") for name in file.namelist())


def state_dict_of(content: Any, key: str | None, *, path: Path) -> Stored:
    """The state dict in the content of a torch file."""
    if key is not None:
        inner = content
        for part in key.split("."):
            if not isinstance(inner, Mapping) or part not in inner:
                there = list(inner) if isinstance(inner, Mapping) else type(inner).__name__
                raise StoreError(f"{path}: nothing under key {key!r}; {part!r} is not in {there}.")
            inner = inner[part]
        return Stored(_tensors(inner, path), key, left_out=_left_out(inner))
    whole = content if isinstance(content, Mapping) else {}
    if any(isinstance(one, Unread) for one in (content, *map(whole.get, KEYS))):
        raise StoreError(f"{path}: holds a pickled model and no state dict; {_TRUST}.")
    sets = {k: v for k, v in whole.items() if isinstance(v, Mapping)}
    # without the average beside it, the iterate would be another trainer's entry
    order = (ITERATE, *KEYS) if KEYS[0] in sets else KEYS
    name = next((k for k in order if k in sets), None)
    if name is None:  # the file's own entries, beside what a training script saved with them
        _require_read({k: v for k, v in whole.items() if _REBUILT in type(v).__name__}, path)
        return Stored(_required(_tensors_by_name(whole), whole, path))
    tensors = _tensors(sets[name], path)
    twins = [
        str(k)
        for k, v in sets.items()
        if k != name and tensors.keys() == _tensors_by_name(v).keys()
    ]
    return Stored(tensors, name, tuple(twins), _left_out(sets[name]))


def _tensors(state: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, all of them."""
    items = state.items() if isinstance(state, Mapping) else ()
    _require_read(dict(items), path)
    for name, value in items:
        if isinstance(value, tuple) and _holds_tensors(value):
            raise StoreError(
                f"{path}: {name} holds tensors in a tuple, as torch.ao's quantised modules do, and "
                "they cannot be averaged. Average the floating-point checkpoints from before the "
                "conversion, and convert the average."
            )
    return _required(_tensors_by_name(state), state, path)


def _require_read(state: Mapping[Any, Any], path: Path) -> None:
    for name, value in state.items():
        if isinstance(value, Unread):
            raise StoreError(
                f"{path}: {name} is a {type(value).__name__}, and no tensor of torch's own; "
                f"{_TRUST}."
            )


def _required(tensors: dict[str, Tensor], state: Any, path: Path) -> dict[str, Tensor]:
    for name, tensor in tensors.items():
        _require_values(tensor, name, path)
    if tensors:
        return tensors
    keys = state if isinstance(state, Mapping) else ()
    there = f"; it has the keys {', '.join(map(str, keys))}" if keys else ""
    raise StoreError(
        f"{path}: holds no state dict, of named tensors{there}; say where it is with key= (--key)."
    )


def _require_values(tensor: Tensor, name: str, path: Path) -> None:
    """Raises `StoreError` for a tensor without values of its own: sparse, nested, on the meta
    device, or one whose few values are repeated by its strides to more than memory may hold."""
    plain = tensor.layout is torch.strided and not tensor.is_nested and tensor.device.type == "cpu"
    if not plain:
        kind = "nested" if tensor.is_nested else f"{tensor.layout} on {tensor.device.type}"
        raise StoreError(
            f"{path}: {name[:80]} is {kind}, and not a dense tensor with values; save it as one."
        )
    size = tensor.numel() * tensor.element_size()
    if size > max(tensor.untyped_storage().nbytes(), _REPEATED):
        raise StoreError(
            f"{path}: {name[:80]} takes {size:,} bytes, many more than the file has for it; save "
            "tensor.contiguous() of it."
        )


def _tensors_by_name(state: Any) -> dict[str, Tensor]:
    items = state.items() if isinstance(state, Mapping) else ()
    return {str(name): value for name, value in items if isinstance(value, Tensor)}


def _left_out(state: Mapping[Any, Any]) -> tuple[str, ...]:
    return tuple(str(name) for name, value in state.items() if not isinstance(value, Tensor))


def _holds_tensors(value: tuple[Any, ...]) -> bool:
    return any(isinstance(v, Tensor) or (isinstance(v, tuple) and _holds_tensors(v)) for v in value)
