"""Elliptical slice sampling in five dimensions of WideResNet-28-10: its memory, and its time.

The memory needed is that of the network and the surface's private copy, the rank + 1 anchors, and
one weight vector. Peak memory is measured in fresh processes: one makes the subspace and samples in
it, the other makes the network and passes the same images forward. BatchNorm statistics are
"frozen": refreshing them takes one more pass for each weight vector, here and in a loop by hand.
"""

from __future__ import annotations

import subprocess
import sys

import torch
from common import Row, ms, paired, peak_bytes, ratio, report

import lowland as ll
from lowland.zoo import WideResNet

RANK = 5
IMAGES = {"peak": 16, "time": 64}
CHAINS, SAMPLES = 2, 2


def images(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, 3, 32, 32), torch.randint(10, (n,))


def memory(what: str) -> None:
    """Prints the peak memory of this process, and P."""
    model = WideResNet().eval()
    x, y = images(IMAGES["peak"])
    if what == "plain":
        model(x)
    else:
        surface = ll.LossSurface(model, ll.Classification(), [(x, y)])
        sub = ll.Subspace.random(surface.layout.flatten(model), rank=RANK)
        # a prior so narrow that proposals of an untrained network are accepted
        options = {"chains": CHAINS, "samples": SAMPLES, "warmup": 0, "prior_scale": 1e-3}
        ll.infer(sub, surface, sampler="ess", batchnorm="frozen", **options)
    print(peak_bytes(), sum(p.numel() for p in model.parameters()))


def peak() -> Row:
    outputs = []
    for what in ("plain", "infer"):
        command = [sys.executable, __file__, "--peak", what]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
        outputs.append([int(word) for word in out.stdout.split()])
    (plain, size), (infer, _) = outputs
    return Row(
        f"peak memory of ll.infer, WideResNet-28-10, rank {RANK}, beyond that of a forward pass",
        "(rank + 4) P floats",
        (infer - plain) / (4 * size * (RANK + 4)),
        "<= 1.1",
        f"{(infer - plain) / 1e9:.2f} GB beyond {plain / 1e9:.2f} GB; P = {size / 1e6:.1f}M",
    )


def time() -> Row:
    """A log density, with weights computed from the anchors, against a plain forward pass."""
    model = WideResNet().eval()
    x, y = images(IMAGES["time"])
    surface = ll.LossSurface(model, ll.Classification(), [(x, y)])
    sub = ll.Subspace.random(surface.layout.flatten(model), rank=RANK)
    likelihood = ll.LogLikelihood(surface, batchnorm="frozen")
    z = torch.zeros(1, RANK)
    density, plain = paired(lambda: likelihood.along(sub, z), lambda: model(x), rounds=3, warm=1)
    return Row(
        f"log density in a subspace, WideResNet-28-10, {IMAGES['time']} images",
        "a forward pass",
        ratio(density, plain),
        "<= 1.05",
        f"{ms(density)} against {ms(plain)}",
    )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    if "--peak" in sys.argv:
        memory(sys.argv[-1])
    else:
        ll.keep_freed_memory()
        report([peak(), time()])
