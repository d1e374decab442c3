"""Whether a device computes in half precision itself, or torch emulates it."""

from __future__ import annotations

from typing import Any

import torch

# of x86-64: what multiplies in half precision; torch's own code does it for bfloat16 elsewhere
_X86 = ("avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16")


def has_half_precision(device: str | torch.device) -> bool:
    """Whether `torch.autocast` to bfloat16 is faster than float32 on a device.

    x86-64 processors without AVX-512 or AMX instructions for it emulate it, about ten times more
    slowly than float32; CUDA devices have it from compute capability 8.0 on.

    Raises `RuntimeError` for a device of which torch has no name.

    >>> has_half_precision("meta")
    False
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    if kind != "cpu":
        return kind in ("mps", "xpu")
    # older versions of torch do not have the function
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get("architecture") != "x86_64" or any(map(capabilities.get, _X86))
