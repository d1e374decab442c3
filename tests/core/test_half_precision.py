"""Half precision of devices."""

import pytest
import torch

from lowland.core.half_precision import has_half_precision

X86 = {"architecture": "x86_64", "avx2": True}


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (X86, False),
        ({**X86, "avx512_bf16": False, "amx_bf16": False}, False),
        ({**X86, "avx512_bf16": True}, True),
        ({**X86, "amx_bf16": True}, True),
        ({"architecture": "aarch64"}, True),
    ],
)
def test_processors(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_half_precision("cpu") is expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_cuda_devices(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_half_precision("cuda:0") is expected


def test_a_missing_cuda_device_has_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not has_half_precision("cuda")
