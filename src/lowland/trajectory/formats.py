"""The tensors of checkpoint files that others wrote, mapped into memory and never unpickled."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowland.core.layout import ParamLayout, Where, clean, clean_names, predicate
from lowland.errors import ConfigError, LayoutError, StoreError
from lowland.files import PathLike, read_tensors

# where training scripts put a state dict
KEYS = ("state_dict", "model_state_dict", "model", "module")
INDEX = ".index.json"
_ZIP = b"PK\x03\x04"  # how torch's files have begun since 1.6
_STATISTICS = re.compile(r"(^|[./])(running_mean|running_var|num_batches_tracked)$")
# copies of the network that some trainers keep beside it; whole words, for "semantic" is none
_COPIES = re.compile(
    r"(?<![a-z])(ema|teacher|shadow|averag(e|ed|ing)|swa|target|momentum)(?![a-z])", re.IGNORECASE
)


def read_checkpoint(
    path: PathLike, *, key: str | None = None, prefix: str | None = None
) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, mapped into memory where its format allows.

    `.safetensors`, the `.index.json` of a checkpoint in several such files, and torch files that
    load with `weights_only=True`: a state dict, or a dict that holds one. Wrappers' prefixes
    (`module.`, `_orig_mod.`) are left out of the names.

    Args:
        key: where in a torch file the state dict is, such as `ema.model`; None: looked for under
            `state_dict`, `model_state_dict`, `model` and `module`.
        prefix: take the tensors whose names begin with it alone, without it: `net.`.

    Raises:
        StoreError: a file that is missing, damaged, or holds no state dict, or pickled objects.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "last.ckpt"
    >>> torch.save({"epoch": 3, "state_dict": {"net.weight": torch.ones(2)}}, path)
    >>> read_checkpoint(path), read_checkpoint(path, prefix="net.")
    ({'net.weight': tensor([1., 1.])}, {'weight': tensor([1., 1.])})
    """
    path = Path(path)
    if path.name.endswith(INDEX):
        tensors = _sharded(path)
    elif path.suffix == ".safetensors":
        tensors = read_tensors(path)[0]
    else:
        tensors = _state_dict(path, read_torch(path), key)
    if not tensors:
        raise StoreError(f"{path}: holds no tensors; name another file.")
    tensors = clean(tensors)
    return tensors if prefix is None else _under(tensors, prefix, path)


def read_torch(path: Path) -> Any:
    """The content of a torch file that needs no pickled code."""
    if not path.is_file():
        raise StoreError(f"{path}: no such file; check the path.")
    with open(path, "rb") as file:
        began = file.read(len(_ZIP))
    mapped = zipfile.is_zipfile(path)
    if not began or (began == _ZIP and not mapped):
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
            "objects, which run code when they are read. If you trust it, save its state dict "
            "alone: safetensors.torch.save_file(torch.load(path, weights_only=False)"
            "['state_dict'], 'new.safetensors')."
        ) from error
    except Exception as error:
        raise StoreError(
            f"{path}: damaged, or no torch file ({type(error).__name__}); copy it again, or leave "
            "it out."
        ) from error


def _state_dict(path: Path, content: Any, key: str | None) -> dict[str, Tensor]:
    if key is not None:
        for part in key.split("."):
            if not isinstance(content, Mapping) or part not in content:
                there = list(content) if isinstance(content, Mapping) else type(content).__name__
                raise StoreError(f"{path}: nothing under key {key!r}; {part!r} is not in {there}.")
            content = content[part]
    found = content if isinstance(content, Mapping) else {}
    if key is None:
        inner = (found[k] for k in KEYS if isinstance(found.get(k), Mapping))
        found = next(inner, found)
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        there = f"; it has the keys {', '.join(map(str, found))}" if found else ""
        raise StoreError(
            f"{path}: holds no state dict, of named tensors{there}; say where it is with key= "
            "(--key)."
        )
    return tensors


def _sharded(index: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint in several files, by its index."""
    if not index.is_file():
        raise StoreError(f"{index}: no such file; check the path.")
    try:
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = list(dict.fromkeys(names.values()))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StoreError(f"{index}: damaged, or no index of files; copy it again.") from error
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_checkpoint(index.with_name(Path(file).name))
    missing = set(clean_names(names).values()) - tensors.keys()
    if missing:
        raise StoreError(
            f"{index}: {len(missing)} of its tensors, such as {min(missing)}, are not in its "
            "files; copy them again."
        )
    return tensors


def _under(tensors: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    if not inside or "" in inside:
        firsts = sorted({n.partition(".")[0] + "." for n in tensors})
        raise ConfigError(
            f"{path}: no name begins with prefix {prefix!r}; the names begin with "
            f"{', '.join(firsts[:5])}."
        )
    return inside


def fitted(tensors: dict[str, Tensor], layout: ParamLayout) -> dict[str, Tensor]:
    """The tensors under the names of `layout`: without the prefix that a trainer put before them.

    Lightning's files have `model.` or `net.` before each name, after the attribute that the network
    is. Names that do not fit at all are left as they are: the layout says what differs.

    Raises:
        LayoutError: several networks fit, neither of which looks like an average of the other.

    >>> layout = ParamLayout(torch.nn.Linear(1, 1))
    >>> weights = {"weight": torch.ones(1, 1), "bias": torch.ones(1)}
    >>> held = {f"net.{n}": t for n, t in weights.items()} | {"scale": torch.ones(1)}
    >>> list(fitted(held, layout))
    ['weight', 'bias']
    """
    forms = {name: {name} for name in layout.names}
    for other, kept in layout.aliases.items():
        forms[kept].add(other)

    def fit(prefix: str) -> bool:
        return all(any(prefix + n in tensors for n in names) for names in forms.values())

    if fit(""):
        return tensors
    firsts = forms[layout.names[0]]
    ends = [n.removesuffix(f) for n in tensors for f in firsts if n.endswith(f".{f}")]
    fits = [prefix for prefix in dict.fromkeys(ends) if fit(prefix)]
    if len(fits) > 1:
        fits = [p for p in fits if not _COPIES.search(p)] or fits
    if len(fits) > 1:
        raise LayoutError(
            f"the names under {', '.join(fits)} fit alike; choose one with "
            f"prefix={fits[0]!r} (--prefix)."
        )
    if not fits:
        return tensors
    return {n.removeprefix(fits[0]): t for n, t in tensors.items() if n.startswith(fits[0])}


def layout_of(tensors: Mapping[str, Tensor], *, where: Where = None) -> ParamLayout:
    """A layout made from a checkpoint, for averages without the model.

    Parameters cannot be told from buffers without the model: every floating-point tensor is taken,
    but for BatchNorm's `running_mean`, `running_var` and `num_batches_tracked`. Tensors that share
    memory in a torch file are tied weights, and count once.

    >>> layout_of({"weight": torch.ones(2), "running_mean": torch.ones(2), "step": torch.tensor(3)})
    ParamLayout(size=2, parameters=1)
    """
    wanted = predicate(where)
    found: list[list[Any]] = []
    aliases: dict[str, str] = {}
    seen: dict[Any, str] = {}
    for name, tensor in tensors.items():
        if not tensor.dtype.is_floating_point or is_statistic(name) or not wanted(name):
            continue
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in seen:
            aliases[name] = seen[place]
            continue
        seen[place] = name
        found.append([name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")])
    if not found:
        raise LayoutError(
            "no floating-point tensor to average, BatchNorm statistics aside; name other files, or "
            "widen where=."
        )
    return ParamLayout.from_spec({"parameters": found, "aliases": aliases})


def is_statistic(name: str) -> bool:
    """Whether a tensor's name is that of a BatchNorm statistic."""
    return _STATISTICS.search(name) is not None


def require_alike(
    tensors: Mapping[str, Tensor], others: Mapping[str, Tensor], *, names: Iterable[PathLike]
) -> None:
    """Raises `LayoutError` unless two checkpoints hold the same names and shapes."""
    ours, theirs = names
    for name in [*tensors, *others]:
        a, b = tensors.get(name), others.get(name)
        if a is None or b is None:
            has, lacks = (theirs, ours) if a is None else (ours, theirs)
            raise LayoutError(
                f"{has} has {name}, which {lacks} lacks: they are of two models; name the files of "
                "one."
            )
        if a.shape != b.shape:
            raise LayoutError(
                f"{name} is {tuple(a.shape)} in {ours} and {tuple(b.shape)} in {theirs}: they are "
                "of two models; name the files of one."
            )
