"""Shared by the benchmarks: paired timings, parameters of VGG-16, rows of the results."""

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
    """A row of the results: `ratio` should satisfy `reach`."""

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
    """Seconds of each work in each round.

    The works run in turn, so that other load on the machine affects all of them.
    """
    times: list[list[float]] = [[] for _ in works]
    for count in range(-warm, rounds):
        for work, seconds in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            if count >= 0:
                seconds.append(time.perf_counter() - start)
    return times


def ratio(times: list[float], reference: list[float]) -> float:
    """The median over rounds of `times / reference`."""
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


def ms(times: list[float]) -> str:
    """The median in milliseconds, as text."""
    return f"{1e3 * statistics.median(times):.1f} ms"


def peak_bytes() -> int:
    """Peak memory of this process so far (Linux)."""
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
    """Prints a table, or with `--json` the form that `run.py` reads."""
    if "--json" in sys.argv:
        print(json.dumps([asdict(row) | {"holds": row.holds} for row in rows]))
        return
    for row in rows:
        verdict = "holds" if row.holds else "MISSED"
        claim = f"{row.work} / {row.against}: {row.detail}"
        print(f"{row.ratio:7.2f}  {row.reach:8}  {verdict:6}  {claim}")
