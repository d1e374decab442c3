"""Quantised weights of checkpoints, integers or float8 with scales, as floating-point numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lowland.errors import StoreError
from lowland.files import PathLike

_BLOCK = 128  # the side of float8's blocks, of which the last may be smaller
_FLOAT8 = (
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
)
_PAIRS = torch.float4_e2m1fn_x2  # two values a byte
_WORDS = (torch.int16, torch.int32, torch.int64)  # hold several values each, where the name says so
# whole words in the last part of a name
_PART = re.compile(
    r"(?<![a-z])(scales?|scb|absmax|q?zeros?|quant|format|g_idx|shape)(?![a-z])", re.IGNORECASE
)
_PACKED = re.compile(r"(?<![a-z])(qweight|packed|w_q)(?![a-z])", re.IGNORECASE)
_BLOCKS = re.compile(r"_(blocks|packed)$")
_ACTIVATIONS = ("input_scale", "output_scale", "input_zero_point", "output_zero_point")


class _UnknownForm(Exception):
    """A convention that a file alone does not explain."""


def dequantize(tensors: Mapping[str, Tensor], *, source: PathLike) -> dict[str, Tensor]:
    r"""The tensors of a checkpoint, with quantised weights in float32 and without their scales.

    Two conventions say all that is needed. compressed-tensors and float8 models: `weight` in int8
    or float8 with `weight_scale` (`weight_scale_inv`, `scale_weight`) and a `weight_zero_point` or
    none, \(w = s (q - z)\), where s is one number, or one for each row, group of a row, or block.
    bitsandbytes: `weight` in int8 with `SCB`, \(w_{ij} = q_{ij} c_i / 127\). float8 without scales
    is taken at its value, and tensors of other libraries' classes, such as torchao's, at what their
    `dequantize()` gives.

    Raises:
        StoreError: weights in another form, by name. Their integers have no mean.

    >>> tensors = {
    ...     "fc.weight": torch.tensor([[127, -64]], dtype=torch.int8),
    ...     "fc.SCB": torch.ones(1),
    ... }
    >>> dequantize(tensors, source="a.safetensors")
    {'fc.weight': tensor([[ 1.0000, -0.5039]])}
    """
    out = dict(tensors)
    for name, parts in quantized(tensors).items():
        try:
            out[name] = _values(name, parts, tensors)
        except _UnknownForm as error:
            raise StoreError(
                f"{source}: {name} is quantised and cannot be averaged: {error}. Average "
                "floating-point checkpoints and quantise the average, or dequantise each file "
                "with the library that wrote it, and average those."
            ) from None
        for part in parts:
            out.pop(part, None)
    return out


def quantized(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The names of quantised weights, each with the names of the other parts of it.

    >>> codes = torch.zeros(2, 2, dtype=torch.float8_e4m3fn)
    >>> quantized({"a.weight": codes, "a.weight_scale": torch.ones(1), "a.bias": torch.ones(2)})
    {'a.weight': ['a.weight_scale']}
    """
    modules: dict[str, list[str]] = {}
    for name in tensors:
        modules.setdefault(_module(name), []).append(name)
    return {name: parts for names in modules.values() for name, parts in _groups(names, tensors)}


def _groups(names: list[str], tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, list[str]]]:
    """The quantised weights of one module."""
    codes = [n for n in names if not _PART.search(_last(n)) and _holds_codes(n, tensors[n])]
    parts = [n for n in names if n not in codes and _PART.search(_last(n))]
    for name in codes or [n for n in parts if tensors[n].dtype in _FLOAT8]:
        own = [p for p in parts if p != name] if codes else []
        if len(codes) > 1:
            own = [p for p in own if p.startswith(_BLOCKS.sub("", name))]
        if own or _is_coded(tensors[name]):
            yield name, own


def _is_foreign(tensor: Tensor) -> bool:
    return type(tensor) not in (Tensor, torch.nn.Parameter)


def _is_coded(tensor: Tensor) -> bool:
    """Whether a tensor's type says that its values are encoded."""
    return _is_foreign(tensor) or tensor.is_quantized or tensor.dtype in (*_FLOAT8, _PAIRS)


def _holds_codes(name: str, tensor: Tensor) -> bool:
    if _is_coded(tensor):
        return True
    if tensor.dtype in _WORDS:
        return _PACKED.search(_last(name)) is not None
    masks = tensor.dtype == torch.uint8 and not bool((tensor > 1).any())
    return tensor.dtype in (torch.int8, torch.uint8) and tensor.numel() > 1 and not masks


def _values(name: str, parts: list[str], tensors: Mapping[str, Tensor]) -> Tensor:
    """A quantised weight in float32."""
    codes, module = tensors[name], _module(name)
    dot = f"{module}." if module else ""
    if _is_foreign(codes):
        try:
            return codes.dequantize().float()
        except Exception as error:
            kind = type(codes).__name__
            raise _UnknownForm(f"a {kind} has no values of its own ({error})") from error
    if codes.is_quantized:
        raise _UnknownForm("torch.ao's converted modules also hold scales of what they compute")
    if codes.dtype == _PAIRS:
        raise _UnknownForm(f"two values lie in each byte ({codes.dtype})")
    if not parts:
        return codes.float()
    left = {p for p in parts if _last(p) not in _ACTIVATIONS}
    scb, layout = tensors.get(f"{dot}SCB"), tensors.get(f"{dot}weight_format")
    if scb is not None and left <= {f"{dot}SCB", f"{dot}weight_format"}:
        if codes.dtype != torch.int8 or (layout is not None and bool((layout != 0).any())):
            raise _UnknownForm("its matrix does not lie in rows of int8 (weight_format)")
        return codes.float() * _spread(scb.float(), codes.shape) / 127
    names = [f"{name}_scale", f"{name}_scale_inv", f"{dot}scale_{_last(name)}"]
    scales, zero = [n for n in names if n in left], f"{name}_zero_point"
    if len(scales) != 1 or left - {scales[0], zero} or codes.dtype not in (torch.int8, *_FLOAT8):
        raise _UnknownForm(f"what {', '.join(sorted(left or parts)[:4])} mean is not known")
    values = codes.float()
    if zero in tensors:
        values = values - _spread(tensors[zero].float(), codes.shape)
    return values * _spread(tensors[scales[0]].float(), codes.shape)


def _spread(scale: Tensor, shape: torch.Size) -> Tensor:
    """Scales for each value: of a tensor, of its rows, or of its groups and blocks."""
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.ndim == 1 and len(scale) == shape[0]:
        return scale.view(-1, *[1] * (len(shape) - 1))
    if scale.ndim != len(shape):
        raise _UnknownForm(f"scales {tuple(scale.shape)} for {tuple(shape)} values")
    for dim, (count, size) in enumerate(zip(scale.shape, shape, strict=True)):
        if count in (1, size):
            continue
        sides = {size // count} if size % count == 0 else set()
        sides |= {_BLOCK} if -(-size // _BLOCK) == count else set()
        if len(sides) != 1:
            raise _UnknownForm(
                f"which of {tuple(shape)} values each of {tuple(scale.shape)} scales is for "
                "cannot be told"
            )
        scale = scale.repeat_interleave(sides.pop(), dim).narrow(dim, 0, size)
    return scale


def _module(name: str) -> str:
    # bitsandbytes' 4 bits and quanto put the parts of a weight under its name
    inner, dot, _ = f".{name}".partition(".weight.")
    return inner[1:] if dot else name.rpartition(".")[0]


def _last(name: str) -> str:
    return name.removeprefix(f"{_module(name)}.")
