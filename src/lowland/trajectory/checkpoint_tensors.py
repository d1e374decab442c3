"""The tensors in checkpoint files of any trainer, mapped into memory; no pickled code is run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lowland.core.layout import ParamLayout
from lowland.core.names import Where, clean, clean_names, name_filter
from lowland.errors import ConfigError, LayoutError, StoreError
from lowland.files import PathLike, is_plain
from lowland.schema import MAX_TEXT, parse_json, require
from lowland.tensor_files import read_tensors
from lowland.trajectory.quantized import dequantize
from lowland.trajectory.singular_vectors import axis_of, spectral_norms
from lowland.trajectory.tensor_kinds import Kind, kinds_of, require_whole
from lowland.trajectory.torch_files import Stored, read_torch, state_dict_of
from lowland.warn import warn

INDEX = ".index.json"
_STAYS = (Kind.INTEGER, Kind.MASK, Kind.CONSTANT)  # buffers that hold for any weights
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
    (`module.`, `_orig_mod.`) are left out of the names. Weights in int8 or float8 with scales are
    given in float32.

    Args:
        key: where in a torch file the state dict is, such as `ema.model`; None: looked for under
            `state_dict`, `model_state_dict`, `model` and `module`. Files of Lightning's
            `WeightAveraging` hold the iterate, which is read, and its average as `state_dict`; a
            warning names the one that was read where a file has both.
        prefix: reads only the tensors whose names begin with it, and removes it: `net.`.

    Raises:
        StoreError: a file that is missing, damaged, or holds no state dict, or pickled objects, or
            weights in an unknown quantised form.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "last.ckpt"
    >>> torch.save({"epoch": 3, "state_dict": {"net.weight": torch.ones(2)}}, path)
    >>> read_checkpoint(path), read_checkpoint(path, prefix="net.")
    ({'net.weight': tensor([1., 1.])}, {'weight': tensor([1., 1.])})
    """
    stored = read_stored(path, key=key, prefix=prefix)
    if stored.choice is not None:
        warn(stored.choice)
    return dequantize(stored.tensors, source=path)


def read_stored(
    path: PathLike,
    *,
    key: str | None = None,
    prefix: str | None = None,
    read: Callable[[Path], Any] = read_torch,
) -> Stored:
    """What `read_checkpoint` reads, before quantised weights are converted to floating point.

    `read`: returns the content of a torch file.
    """
    path = Path(path)
    if path.name.endswith(INDEX):
        stored = Stored(_sharded(path))
    elif path.suffix == ".safetensors":
        stored = Stored(read_tensors(path)[0])
    else:
        stored = state_dict_of(read(path), key, path=path)
    if not stored.tensors:
        raise StoreError(f"{path}: holds no tensors; name another file.")
    tensors = clean(stored.tensors)
    return stored._replace(tensors=tensors if prefix is None else _under(tensors, prefix, path))


def checkpoint_files(path: PathLike) -> list[Path]:
    """The files of a checkpoint: itself, and the files that it names if it is an index."""
    path = Path(path)
    if not path.name.endswith(INDEX):
        return [path]
    return [path, *(path.with_name(file) for file in dict.fromkeys(_weight_map(path).values()))]


def _weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor of a checkpoint in several files, by its index."""
    if not index.is_file():
        raise StoreError(f"{index}: no such file; check the path.")
    if index.stat().st_size > MAX_TEXT:
        raise StoreError(f"{index}: larger than {MAX_TEXT:,} bytes; name another file.")
    body = parse_json(index.read_bytes(), source=index)
    require(body, dict[str, Any], source=index, advice="copy it again")
    names: Any = body.get("weight_map")
    require(names, dict[str, str], source=f"{index}: weight_map", advice="copy it again")
    for file in names.values():
        if not is_plain(file) or file.endswith(INDEX):
            raise StoreError(
                f"{index}: names the file {file[:80]!r}, which is not a plain name of a file of "
                "tensors beside it; copy it again."
            )
    return dict(names)


def _sharded(index: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint in several files."""
    names = _weight_map(index)
    tensors: dict[str, Tensor] = {}
    for file in dict.fromkeys(names.values()):
        tensors |= read_stored(index.with_name(file)).tensors
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


def match_layout(tensors: dict[str, Tensor], layout: ParamLayout) -> dict[str, Tensor]:
    """The tensors under the names of `layout`: without the prefix that a trainer put before them.

    Lightning's files have `model.` or `net.` before each name, after the attribute that the network
    is. Names that do not fit at all stay as they are; the layout's error names the difference.

    Raises:
        LayoutError: several networks fit, neither of which looks like an average of the other.

    >>> import torch
    >>> layout = ParamLayout(torch.nn.Linear(1, 1))
    >>> weights = {"weight": torch.ones(1, 1), "bias": torch.ones(1)}
    >>> tensors = {f"net.{n}": t for n, t in weights.items()} | {"scale": torch.ones(1)}
    >>> list(match_layout(tensors, layout))
    ['weight', 'bias']
    """
    forms = {name: {name} for name in layout.names}
    for alias, name in layout.aliases.items():
        forms[name].add(alias)

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


def layout_of(
    tensors: Mapping[str, Tensor],
    *,
    where: Where = None,
    kinds: Mapping[str, Kind] | None = None,
) -> ParamLayout:
    """A layout made from a checkpoint, for averages without the model.

    It includes every floating-point tensor whose name does not mark it as something else, such as
    running statistics: see `kinds_of`, whose result is `kinds`. Tensors that share memory in a
    torch file are tied weights, and count once.

    Raises:
        LayoutError: nothing to average, or a weight of complex numbers, a part of a weight, or a
            spectral norm that needs the model.

    >>> import torch
    >>> layout_of({"weight": torch.ones(2), "running_mean": torch.ones(2), "step": torch.tensor(3)})
    ParamLayout(size=2, parameters=1)
    """
    selected = name_filter(where)
    parameters: list[list[Any]] = []
    aliases: dict[str, str] = {}
    seen: dict[Any, str] = {}
    kinds = kinds_of(tensors) if kinds is None else kinds
    for name, tensor in tensors.items():
        if kinds[name] is Kind.COMPLEX and selected(name):
            raise LayoutError(
                f"{name}: expected real floating-point weights, got {tensor.dtype}; save "
                "torch.view_as_real of it instead, or leave it to the last checkpoint with where= "
                "(--where)."
            )
        if kinds[name] is not Kind.WEIGHT or not selected(name):
            continue
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in seen:
            aliases[name] = seen[place]
            continue
        seen[place] = name
        parameters.append([name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")])
    if not parameters:
        raise LayoutError(
            "no floating-point tensor to average, running statistics aside; name other files, or "
            "widen where=."
        )
    for norm in spectral_norms(tensors):
        if selected(norm.weight):
            axis_of(norm, tensors)  # before the work rather than after it
    require_whole({*seen.values(), *aliases}, kinds)
    layout = ParamLayout.from_spec({"parameters": parameters, "aliases": aliases})
    # what weights determine has no mean: a surface finds it anew, and refuses to go without
    layout.buffer_names = frozenset(n for n, kind in kinds.items() if kind in _STAYS)
    return layout


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
