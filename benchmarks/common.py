"""What the benchmarks share: paired timings, the networks' shapes, rows of the results."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Row:
    """One claim: `ratio` is to stay on the right side of `reach`."""

    work: str
    against: str
    ratio: float
    reach: str  # "<= 1.05" or ">= 6"
    detail: str

    @property
    def holds(self) -> bool:
        sign, bound = self.reach.split()
        return self.ratio <= float(bound) if sign == "<=" else self.ratio >= float(bound)


def paired(*works: Callable[[], object], rounds: int = 15, warm: int = 2) -> list[list[float]]:
    """Seconds of each work, round by round, in turn, so that a busy neighbour hits them all."""
    times: list[list[float]] = [[] for _ in works]
    for count in range(-warm, rounds):
        for work, found in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            if count >= 0:
                found.append(time.perf_counter() - start)
    return times


def ratio(times: list[float], reference: list[float]) -> float:
    """The median over rounds of one work's time over another's."""
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


def ms(times: list[float]) -> str:
    """The median in words."""
    return f"{1e3 * statistics.median(times):.1f} ms"


def peak_bytes() -> int:
    """The most memory that this process has held so far (Linux)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024


class VGG16BN(nn.Module):
    """The parameters of VGG-16 with batch normalisation for CIFAR-10, 15.3 million; no forward."""

    def __init__(self) -> None:
        super().__init__()
        shapes: list[tuple[int, ...]] = []
        channels = 3
        for width in (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512):
            shapes += [(width, channels, 3, 3), (width,), (width,), (width,)]
            channels = width
        shapes += [(512, 512), (512,), (512, 512), (512,), (10, 512), (10,)]
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(s) * 0.05) for s in shapes])


def report(rows: list[Row]) -> None:
    """Prints rows: a table, or with `--json` what `run.py` reads."""
    if "--json" in sys.argv:
        print(json.dumps([asdict(row) | {"holds": row.holds} for row in rows]))
        return
    for row in rows:
        verdict = "holds" if row.holds else "MISSED"
        claim = f"{row.work} / {row.against}: {row.detail}"
        print(f"{row.ratio:7.2f}  {row.reach:8}  {verdict:6}  {claim}")
