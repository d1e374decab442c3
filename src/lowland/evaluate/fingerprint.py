"""The fingerprint of an evaluation: files with another fingerprint are refused."""

from __future__ import annotations

import re
import zlib
from typing import Any

import torch

from lowland.core import EvalOptions, LossSurface
from lowland.core.data import example_hashes
from lowland.core.task import count_examples
from lowland.geometry import Shape
from lowland.tensor_files import tensor_checksum

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def evaluation_fingerprint(
    shape: Shape, surface: LossSurface, options: EvalOptions
) -> dict[str, Any]:
    """What the values at points of a shape depend on, except for points, examples and metrics."""
    buffers = (shape.buffers or {}).values()
    threads = {} if options.threads is None else {"threads": options.threads}
    return {
        "shape": f"{type(shape).__name__} {tensor_checksum(shape.anchors, *buffers)}",
        "model": model_fingerprint(surface),
        "task": repr(surface.task),
        "batchnorm": options.batchnorm,
        "bn_rows": statistics_checksum(surface) if options.batchnorm == "refresh" else None,
        "device": surface.device.type,
        "autocast": str(surface.template.autocast),
        "channels_last": surface.channels_last,
        "strategy": options.strategy,
        "chunk": options.chunk,
        **threads,
    }


def model_fingerprint(surface: LossSurface) -> str:
    """Names and shapes of w, a checksum of the printed layers, and one of the model's buffers and
    its parameters that are no part of w."""
    template = surface.template
    layers = _ADDRESS.sub("", repr(template.module)).encode()
    places = {place for name in surface.layout.names for place in template.places[name]}
    parameters = template.module.named_parameters(remove_duplicate=False)
    fixed = [parameter for name, parameter in parameters if name not in places]
    checksum = tensor_checksum(*surface.buffers.values(), *fixed)
    return f"{surface.layout.fingerprint} {zlib.crc32(layers):08x} {checksum}"


def statistics_checksum(surface: LossSurface) -> str | None:
    """A checksum of the examples for BatchNorm statistics; None without BatchNorm."""
    if not surface.has_batchnorm:
        return None
    batches = surface.statistics.batches()
    return tensor_checksum(
        torch.cat([example_hashes(batch, count_examples(batch)) for batch in batches])
    )
