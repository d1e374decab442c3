"""What values at weights depend on, in a few words; files made under others are refused."""

from __future__ import annotations

import re
import zlib
from typing import Any

import torch
from torch import Tensor

from lowland.core import EvalOptions, LossSurface
from lowland.core.data import example_hashes
from lowland.core.task import count_examples as rows_in
from lowland.geometry import Shape

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def evaluation_fingerprint(
    shape: Shape, surface: LossSurface, options: EvalOptions
) -> dict[str, Any]:
    """What values at points of a shape depend on, but for the points, the rows and the figures."""
    buffers = (shape.buffers or {}).values()
    threads = {} if options.threads is None else {"threads": options.threads}
    return {
        "shape": f"{type(shape).__name__} {tensor_checksum(shape.anchors, *buffers)}",
        "model": model_of(surface),
        "task": repr(surface.task),
        "batchnorm": options.batchnorm,
        "bn_rows": statistics_of(surface) if options.batchnorm == "refresh" else None,
        "device": surface.device.type,
        "autocast": str(surface.template.autocast),
        "channels_last": surface.channels_last,
        "strategy": options.strategy,
        "chunk": options.chunk,
        **threads,
    }


# -- fingerprints ----------------------------------------------------------------------------------


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
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel() == 1:  # an expanded number has a stride of 0, which no view of bytes takes
            flat = flat.clone(memory_format=torch.contiguous_format)
        crc = zlib.crc32(flat.view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def model_of(surface: LossSurface) -> str:
    """Names and shapes of w, and a checksum of what else a loss depends on in the model.

    That is its layers as it prints them, buffers, and parameters that are no part of w.
    """
    template = surface.template
    layers = _ADDRESS.sub("", repr(template.module)).encode()
    mine = {place for name in surface.layout.names for place in template.places[name]}
    named = dict(template.module.named_parameters(remove_duplicate=False))
    others = [parameter for name, parameter in named.items() if name not in mine]
    held = tensor_checksum(*surface.buffers.values(), *others)
    return f"{surface.layout.fingerprint} {zlib.crc32(layers):08x} {held}"


def statistics_of(surface: LossSurface) -> str | None:
    """A checksum of the rows for BatchNorm statistics; None without BatchNorm."""
    if not surface.has_batchnorm:
        return None
    batches = surface.statistics.batches()
    return tensor_checksum(torch.cat([example_hashes(batch, rows_in(batch)) for batch in batches]))
