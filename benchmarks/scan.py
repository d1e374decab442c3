"""Scans of planes: against bare forward passes, across precisions, and against loss-landscapes.

A scan of a convolutional network is compared with as many forward passes over the same tensors in
the same memory format and precision, and the default layout with channels_last and bfloat16. Then
the same plane is scanned by `loss-landscapes` 3.0.6, which moves the weights of a model in place
and evaluates point by point. Its values are compared at the weights that it evaluates: every other
row of its plane is one step off, and t = 0 is not evaluated.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import loss_landscapes
import torch
from common import Row, ms, paired, ratio, report
from loss_landscapes.metrics import Loss
from torch import Tensor, nn

import lowland as ll

POINTS = 3  # along each axis, of the convolutional network
BATCHES, IMAGES = 4, 256  # images per batch


def network() -> nn.Module:
    """A VGG-like network of 0.6 million weights for 32 x 32 images, without BatchNorm."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (16, 32, 64, 128):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )


def against_passes() -> list[Row]:
    """Scans against forward passes alone, in equal formats and precisions."""
    model = network().eval().requires_grad_(False)
    scan_model = copy.deepcopy(model).requires_grad_(True)
    batches = [
        (torch.randn(IMAGES, 3, 32, 32), torch.randint(10, (IMAGES,))) for _ in range(BATCHES)
    ]
    formats: dict[str, dict[str, Any]] = {
        "default layout": {},
        "channels_last": {"channels_last": True},
        "channels_last, bfloat16": {"channels_last": True, "autocast": torch.bfloat16},
    }
    works: list[Any] = []
    for options in formats.values():
        works += [_scan(scan_model, batches, options), _passes(model, batches, options)]
    times = paired(*works, rounds=3, warm=1)
    size = f"{POINTS}² points, {BATCHES} x {IMAGES} images"
    rows = []
    for i, name in enumerate(formats):
        scans, alone = times[2 * i : 2 * i + 2]
        against = f"{POINTS**2} forward passes, {name}"
        detail = f"{ms(scans)} against {ms(alone)}"
        rows.append(Row(f"scan, {size}, {name}", against, ratio(scans, alone), "<= 1.05", detail))
    for i, (name, reach) in enumerate(zip(list(formats)[1:], (1.9, 2.9), strict=True), start=1):
        slow, fast = times[0], times[2 * i]
        detail = f"{ms(slow)} against {ms(fast)}"
        rows.append(
            Row(f"scan, {size}, default layout", name, ratio(slow, fast), f">= {reach}", detail)
        )
    return rows


def _scan(model: nn.Module, batches: list[Any], options: dict[str, Any]) -> Any:
    surface = ll.LossSurface(model, ll.Classification(), batches, **options)
    surface.data = surface.data.cached()  # in the memory format of the passes' tensors
    w = surface.layout.flatten(model)
    plane = ll.Plane(w, *ll.directions(surface, w))
    return lambda: ll.scan(plane, surface, resolution=POINTS)


def _passes(model: nn.Module, batches: list[Any], options: dict[str, Any]) -> Any:
    last = options.get("channels_last", False)
    images = [x.to(memory_format=torch.channels_last) if last else x for x, _ in batches]
    dtype = options.get("autocast")

    @torch.no_grad()
    def work() -> None:
        for _ in range(POINTS**2):
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                for x in images:
                    model(x)

    return work


def cases() -> Iterator[tuple[str, nn.Module, Tensor, int, int, str]]:
    """(description, network, examples, classes, points along an axis, reach) of small networks."""
    yield (
        "4-16-3 units, 32 rows",
        nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)),
        torch.randn(32, 4),
        3,
        61,
        ">= 2",
    )
    yield (
        "64-50-10 units, 128 rows",
        nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10)),
        torch.randn(128, 64),
        10,
        41,
        ">= 2",
    )
    yield (
        "64-100-100-10 units, 900 rows",
        nn.Sequential(
            nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
        ),
        torch.randn(900, 64),
        10,
        31,
        ">= 1",
    )
    yield (
        "two convolutions, 128 images of 8 x 8",
        nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        ),
        torch.randn(128, 1, 8, 8),
        10,
        21,
        ">= 1",
    )
    yield ("VGG-like, 256 images", network(), torch.randn(256, 3, 32, 32), 10, 5, ">= 1")


class RecordingLoss(Loss):
    """The loss of loss-landscapes, which records the weights of each evaluation."""

    def __init__(self, *args: Any, layout: ll.ParamLayout) -> None:
        super().__init__(*args)
        self.layout = layout
        self.evaluations: list[tuple[Tensor, float]] = []

    def __call__(self, wrapper: Any) -> float:
        value = super().__call__(wrapper)
        self.evaluations.append((self.layout.flatten(dict(self._named_parameters(wrapper))), value))
        return value

    def _named_parameters(self, wrapper: Any) -> Iterator[tuple[str, Tensor]]:
        return wrapper.modules[0].named_parameters()


def against_loss_landscapes() -> list[Row]:
    """The same plane by both libraries, on one thread and with as many points."""
    out = []
    for what, net, x, classes, points, reach in cases():
        ends = [copy.deepcopy(net) for _ in range(3)]
        for end in ends:
            for p in end.parameters():
                torch.nn.init.normal_(p, std=0.3 if p.ndim < 3 else 0.1)
        labels = torch.randint(classes, (len(x),))
        surface = ll.LossSurface(net, ll.Classification(), [(x, labels)])
        w, u, v = (surface.layout.flatten(end) for end in ends)
        plane = ll.Plane(w, u - w, v - w)
        metric = Loss(nn.CrossEntropyLoss(), x, labels)
        scans = _scans(surface, plane, ends, metric, points)
        times, other_times = paired(*scans, rounds=5, warm=1)
        forward = min(paired(lambda net=net, x=x: _once(net, x), rounds=20, warm=5)[0])
        apart, misplaced = compare_losses(surface, plane, ends, (x, labels), 4)
        detail = (
            f"{ms(times)} against {ms(other_times)}, a forward pass {1e3 * forward:.3f} ms; "
            f"losses apart by at most {apart:.0e}, {misplaced} of 16 points of "
            "loss-landscapes off its grid"
        )
        work = f"loss-landscapes 3.0.6, {points}² points, {what}"
        out.append(Row(work, "scan", ratio(other_times, times), reach, detail))
    return out


def _scans(surface: ll.LossSurface, plane: ll.Plane, ends: Any, metric: Loss, points: int) -> Any:
    def lowland_scan() -> None:
        box = ((0, 1), (0, 1))
        ll.scan(plane, surface, resolution=points, bounds=box, metrics=("loss",))

    def other_scan() -> None:
        loss_landscapes.planar_interpolation(*ends, metric, steps=points, deepcopy_model=True)

    return lowland_scan, other_scan


@torch.no_grad()
def _once(net: nn.Module, x: Tensor) -> None:
    net(x)


def compare_losses(
    surface: ll.LossSurface, plane: ll.Plane, ends: Any, batch: Any, steps: int
) -> tuple[float, int]:
    """The largest difference of losses at equal weights, and the number of points off the grid."""
    recorder = RecordingLoss(nn.CrossEntropyLoss(), *batch, layout=surface.layout)
    matrix = loss_landscapes.planar_interpolation(*ends, recorder, steps=steps, deepcopy_model=True)
    weights, values = zip(*recorder.evaluations, strict=True)
    losses = surface.evaluate(torch.stack(weights)).loss
    apart = (losses - torch.tensor(values, dtype=torch.float64)).abs().max()
    grid = {}  # loss -> coordinates of its place in the matrix: i steps along, j across
    for i in range(steps):
        for j in range(steps):
            grid[float(matrix[i, j])] = (i / steps, j / steps)
    off = 0
    for w, value in recorder.evaluations:
        coords, _ = plane.coords_of(w)
        off += bool((coords - torch.tensor(grid[value]).double()).abs().max() > 0.01 / steps)
    return float(apart), off


def main() -> list[Row]:
    ll.keep_freed_memory()
    torch.manual_seed(0)
    rows = against_passes()
    torch.set_num_threads(1)
    return rows + against_loss_landscapes()


if __name__ == "__main__":
    report(main())
