"""A training step on a Bezier curve, or a simplex, against plain SGD steps of the same model.

The plain step is a forward pass, a backward pass and fused SGD with momentum. Both steps have
weight decay and batches of 128. "fast" means bfloat16 and channels_last memory, where passes over
the weights take a larger share of the time. A step on a simplex of four vertices has five points,
as in the paper, and the gradient of the volume. It is compared with five plain steps.
"""

from __future__ import annotations

import torch
from common import Row, ms, paired, ratio, report
from torch import nn

import lowland as ll
from lowland import zoo
from lowland.train.objective import Objective
from lowland.train.options import TrainOptions
from lowland.train.shape_trainer import ShapeTrainer

BATCH, DECAY = 128, 3e-4
SAMPLES = 5  # points of a simplex per step


def case(
    name: str,
    model: nn.Module,
    image: tuple[int, ...],
    reach: str,
    *,
    rounds: int,
    simplex: bool = False,
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
) -> Row:
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, *image), torch.randint(10, (BATCH,))
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    task = ll.Classification()
    surface = ll.LossSurface(
        model, task, [(x, y)], autocast=autocast, channels_last=channels_last, bn_rows=BATCH
    )
    w = surface.layout.flatten(model)
    samples = SAMPLES if simplex else 1
    near = w + 0.01 * torch.randn(2, len(w))
    shape = ll.Simplex([w, *near]).grow() if simplex else ll.Bezier.between(w, near[0])

    def sgd(parameters, weight_decay=0.0):
        return torch.optim.SGD(
            parameters, lr=1e-4, momentum=0.9, fused=True, weight_decay=weight_decay
        )

    plain = sgd(model.parameters(), weight_decay=DECAY)

    def step() -> None:
        for _ in range(samples):
            one_step()

    def one_step() -> None:
        plain.zero_grad(set_to_none=True)
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            output = model(x)
        loss = task.items_nll(output, y).mean()
        loss.backward()
        loss.item()  # as in a loop that logs the loss
        plain.step()

    objective = Objective(
        samples=samples,
        strategy="accumulate",
        weight_decay=DECAY,
        log_volume=1e-6 if simplex else 0.0,
    )
    # precision and memory format are those of the surface
    trainer = ShapeTrainer(
        shape, surface, [(x, y)], objective, TrainOptions(optimizer=sgd), epochs=1
    )
    trainer.epoch = 1  # labels are checked in the first epoch

    def curve_step() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer._backward((x, y))
        trainer._optimizer_step(1)

    shape_times, plain_times = paired(curve_step, step, rounds=rounds)
    size = surface.layout.size / 1e6
    kind = "simplex" if simplex else "Bezier curve"
    return Row(
        f"a step on a {kind}, {name} ({size:.2g} million weights)",
        f"{samples} plain SGD steps" if simplex else "a plain SGD step",
        ratio(shape_times, plain_times),
        reach,
        f"{ms(shape_times)} against {ms(plain_times)}",
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
            case("ConvFC", zoo.ConvFC(), image, "<= 1.10", rounds=5, simplex=True),
            case("ConvFC, fast", zoo.ConvFC(), image, "<= 1.10", rounds=9, simplex=True, **fast),
            case("VGG-16-BN, fast", zoo.VGG16(), image, "<= 1.10", rounds=3, simplex=True, **fast),
        ]
    )


if __name__ == "__main__":
    main()
