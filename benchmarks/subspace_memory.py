"""Elliptical slice sampling in five dimensions of WideResNet-28-10: its memory, and its time.

What it must hold: the network and the surface's private copy of it, the rank + 1 anchors, and one
vector of weights. Peak memory is measured in fresh processes, from a subspace's making to the last
draw, beside that of one that makes the network and passes the same rows forward. BatchNorm
statistics stay as they are ("frozen"): refreshing them is one more pass over their rows for each
weight vector, here and in a loop by hand.
"""

from __future__ import annotations

import subprocess
import sys

import torch
from common import Row, ms, paired, peak_bytes, ratio, report

import lowland as ll
from lowland.zoo import WideResNet

RANK = 5
ROWS = {"peak": 16, "time": 64}  # images
CHAINS, SAMPLES = 2, 2


def images(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(rows, 3, 32, 32), torch.randint(10, (rows,))


def memory(what: str) -> None:
    """Prints the most that this process has held, and P."""
    model = WideResNet().eval()
    x, y = images(ROWS["peak"])
    if what == "plain":
        model(x)
    else:
        surface = ll.LossSurface(model, ll.Classification(), [(x, y)])
        sub = ll.Subspace.random(surface.layout.flatten(model), rank=RANK)
        # so small a prior that a proposal of a network that nobody trained is accepted
        options = {"chains": CHAINS, "samples": SAMPLES, "warmup": 0, "prior_scale": 1e-3}
        ll.infer(sub, surface, sampler="ess", batchnorm="frozen", **options)
    print(peak_bytes(), sum(p.numel() for p in model.parameters()))


def peak() -> Row:
    found = []
    for what in ("plain", "infer"):
        command = [sys.executable, __file__, "--peak", what]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append([int(word) for word in out.stdout.split()])
    (plain, size), (ours, _) = found
    return Row(
        f"peak memory of ll.infer, WideResNet-28-10, rank {RANK}, beyond that of a forward pass",
        "(rank + 4) P floats",
        (ours - plain) / (4 * size * (RANK + 4)),
        "<= 1.1",
        f"{(ours - plain) / 1e9:.2f} GB beyond {plain / 1e9:.2f} GB; P = {size / 1e6:.1f}M",
    )


def time() -> Row:
    """An evaluation, with weights made from the anchors, against a plain pass over the rows."""
    model = WideResNet().eval()
    x, y = images(ROWS["time"])
    surface = ll.LossSurface(model, ll.Classification(), [(x, y)])
    sub = ll.Subspace.random(surface.layout.flatten(model), rank=RANK)
    likelihood = ll.LogLikelihood(surface, batchnorm="frozen")
    z = torch.zeros(1, RANK)
    ours, plain = paired(lambda: likelihood.along(sub, z), lambda: model(x), rounds=3, warm=1)
    return Row(
        f"log density in a subspace, WideResNet-28-10, {ROWS['time']} images",
        "a forward pass",
        ratio(ours, plain),
        "<= 1.05",
        f"{ms(ours)} against {ms(plain)}",
    )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    if "--peak" in sys.argv:
        memory(sys.argv[-1])
    else:
        ll.keep_freed_memory()
        report([peak(), time()])
