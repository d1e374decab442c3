"""A training step on a Bezier curve against a plain SGD step of the same model.

The plain step is what a user writes: forward, backward, fused SGD with momentum. Weight decay is in
both. Batches of 128; fast: in bfloat16 and channels_last memory, where the same passes over the
weights count for more.
"""

from __future__ import annotations

import torch
from common import Row, ms, paired, ratio, report
from torch import nn

import lowland as ll
from lowland import zoo
from lowland.train.along import Along
from lowland.train.options import Options

BATCH, DECAY = 128, 3e-4


def case(
    name: str,
    model: nn.Module,
    shape: tuple[int, ...],
    reach: str,
    *,
    rounds: int,
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
) -> Row:
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, *shape), torch.randint(10, (BATCH,))
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    task = ll.Classification()
    surface = ll.LossSurface(
        model, task, [(x, y)], autocast=autocast, channels_last=channels_last, bn_rows=BATCH
    )
    w = surface.layout.flatten(model)
    curve = ll.Bezier.between(w, w + 0.01 * torch.randn_like(w))

    def optimizer(parameters):
        return torch.optim.SGD(
            parameters, lr=1e-4, momentum=0.9, fused=True, weight_decay=DECAY if plainly else 0.0
        )

    plainly = True
    plain = optimizer(model.parameters())

    def step() -> None:
        plain.zero_grad(set_to_none=True)
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            output = model(x)
        loss = task.items_nll(output, y).mean()
        loss.backward()
        loss.item()  # as any loop that logs its loss
        plain.step()

    plainly = False
    options = Options(1, optimizer=optimizer, autocast=autocast, channels_last=channels_last)
    run = Along(curve, surface, [(x, y)], options, weight_decay=DECAY)
    run.epoch = 1  # labels are checked in the first

    def along() -> None:
        run.optimizer.zero_grad(set_to_none=True)
        run._backward((x, y))
        run._apply(1)

    mine, theirs = paired(along, step, rounds=rounds)
    size = surface.layout.size / 1e6
    return Row(
        f"a step on a Bezier curve, {name} ({size:.2g} million weights)",
        "a plain SGD step",
        ratio(mine, theirs),
        reach,
        f"{ms(mine)} against {ms(theirs)}",
    )


def main() -> None:
    ll.keep_freed_memory()
    image = (3, 32, 32)
    fast = {"autocast": torch.bfloat16, "channels_last": True}
    mlp = zoo.MLP(inputs=64, outputs=10, widths=(256, 256, 64))
    report(
        [
            case("MLP", mlp, (64,), "<= 1.3", rounds=200),
            case("ConvFC", zoo.ConvFC(), image, "<= 1.10", rounds=9),
            case("ConvFC, fast", zoo.ConvFC(), image, "<= 1.10", rounds=15, **fast),
            case("PreResNet-20, fast", zoo.PreResNet(), image, "<= 1.05", rounds=9, **fast),
            case("VGG-16-BN", zoo.VGG16(), image, "<= 1.05", rounds=3),
            case("VGG-16-BN, fast", zoo.VGG16(), image, "<= 1.05", rounds=7, **fast),
        ]
    )


if __name__ == "__main__":
    main()
