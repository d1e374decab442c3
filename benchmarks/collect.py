"""What members cost: one an epoch while PreResNet-20 trains on CIFAR-10, and predicting with them.

A member is written to disk by a `Trajectory`, or updates a SWAG of rank 20. Both are timed against
two training steps in turn with them, of the 391 of an epoch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from common import Row, ms, paired, ratio, report
from torch import Tensor, nn

import lowland as ll
from lowland.zoo import PreResNet

BATCH, STEPS, EPOCH, MEMBERS = 128, 2, 391, 4


def batch_of(g: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 3, 32, 32, generator=g), torch.randint(10, (size,), generator=g)


def training(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def steps() -> None:
        model.train()
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    return steps


def main() -> list[Row]:
    g = torch.Generator().manual_seed(0)
    model = PreResNet(classes=10)
    layout = ll.ParamLayout(model)
    swag, numbers = ll.SWAG(layout), count()
    with tempfile.TemporaryDirectory() as folder:
        store = ll.Trajectory.create(Path(folder) / "run", layout)
        trained, stored, averaged = paired(
            training(model, *batch_of(g, BATCH)),
            lambda: store.append(model, step=next(numbers)),
            lambda: swag.update(model),
            rounds=7,
        )
    rows = []
    for name, times in (("a member on disk", stored), ("an update of SWAG", averaged)):
        share = ratio(times, trained) * STEPS / EPOCH
        detail = f"{ms(times)} against {ms(trained)} for {STEPS} of {EPOCH} steps"
        rows.append(Row(name, "an epoch of PreResNet-20", share, "<= 0.01", detail))

    x, y = batch_of(g, 256)
    surface = ll.LossSurface(model, ll.Classification(), [(x, y)])
    w = layout.flatten(model)
    noise = torch.randn(MEMBERS, len(w), generator=g)
    members = [surface.estimated(ll.Point(w + 0.01 * each)) for each in noise]
    threads = torch.get_num_threads()

    def predict() -> None:
        ll.predict(surface, members, [(x, y)], strategy="points", chunk=1, threads=threads)

    @torch.no_grad()
    def passes() -> None:
        for _ in members:
            model.eval()(x)

    predicted, alone = paired(predict, passes, rounds=7)
    detail = f"{ms(predicted)} against {ms(alone)}"
    work, against = f"`ll.predict` with {MEMBERS} members", f"{MEMBERS} forward passes"
    return [*rows, Row(work, against, ratio(predicted, alone), "<= 1.05", detail)]


if __name__ == "__main__":
    report(main())
