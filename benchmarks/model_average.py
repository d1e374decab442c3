"""A model average of 30 draws against 30 forward passes over the same tensors, without BatchNorm.

Two references: forward passes alone with one weight vector, a lower bound; and a loop by hand,
which loads each draw into the model and sums softmax outputs. All of them with
`ll.keep_freed_memory()`: without it the time of equal forward passes differs by a third between
processes, by page faults that depend on the first allocations.
"""

from __future__ import annotations

import torch
from common import Row, ms, paired, ratio, report
from torch import nn

import lowland as ll

SAMPLES = 30
BATCHES, IMAGES = 16, 256  # images per batch


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


def main() -> list[Row]:
    ll.keep_freed_memory()
    torch.manual_seed(0)
    model = network().eval().requires_grad_(True)
    batches = [
        (torch.randn(IMAGES, 3, 32, 32), torch.randint(10, (IMAGES,))) for _ in range(BATCHES)
    ]
    surface = ll.LossSurface(model, ll.Classification(), batches)
    swag = ll.SWAG(surface.layout, rank=20)
    w = surface.layout.flatten(model)
    for _ in range(21):
        swag.update(w + 1e-3 * torch.randn_like(w))
    post = swag.posterior()

    @torch.no_grad()
    def passes() -> None:
        for _ in range(SAMPLES):
            for x, _ in batches:
                model(x)

    @torch.no_grad()
    def by_hand() -> None:
        sums = [torch.zeros(len(x), 10) for x, _ in batches]
        for i in range(SAMPLES):
            surface.layout.load_(model, post.draw(i))
            for (x, _), total in zip(batches, sums, strict=True):
                total += model(x).softmax(1)

    def average() -> None:
        ll.predict(surface, post, batches, samples=SAMPLES)

    averages, alone, hand = paired(average, passes, by_hand, rounds=3, warm=1)
    size = f"{SAMPLES} samples, P = {surface.layout.size / 1e6:.1f}M, {BATCHES} x {IMAGES} images"
    return [
        Row(
            f"model average, {size}",
            f"{SAMPLES} forward passes",
            ratio(averages, alone),
            "<= 1.05",
            f"{ms(averages)} against {ms(alone)}",
        ),
        Row(
            f"model average, {size}",
            "the loop by hand: draw, load, softmax, add",
            ratio(averages, hand),
            "<= 1.05",
            f"{ms(averages)} against {ms(hand)}",
        ),
    ]


if __name__ == "__main__":
    report(main())
