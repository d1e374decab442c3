"""The network of the study, its data, and how a solution is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lowland as ll
from lowland.zoo import cifar10

TASK = ll.Classification()
TARGET = 0.5  # training loss at which all solutions stop
MEASURED = 2000  # training examples on which curvature is measured

Split = tuple[Tensor, Tensor]  # images (n, 3, 32, 32), labels (n,)


class StridedNet(nn.Module):
    """Three convolutions of stride 2 with BatchNorm and ReLU, then a linear layer: 34,346 weights.

    Strides in the place of pooling keep an epoch of 10,000 images under two seconds on one core.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for inputs, outputs in zip((3, *widths[:-1]), widths, strict=True):
            blocks += [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(16 * widths[-1], 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).flatten(1))
        return logits


@dataclass(frozen=True)
class Recipe:
    """How a solution is trained; its learning rate and momentum of 0.9 are constant."""

    batch: int
    lr: float
    weight_decay: float
    sam: float | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        sam = f"-sam{self.sam:g}" if self.sam else ""
        return f"batch{self.batch}-lr{self.lr:g}-wd{self.weight_decay:g}{sam}-seed{self.seed}"

    def settings(self) -> dict[str, Any]:
        return asdict(self)


def load_data(root: Path, *, train: int, test: int | None) -> tuple[Split, Split]:
    """Normalised images of CIFAR-10 without augmentation, in memory: training and test examples."""
    data = cifar10(root, train=train, validation=0, test=test, augment=False)
    whole = []
    for name in ("clean", "test"):
        images, labels = zip(*data[name], strict=True)
        whole.append((torch.cat(images), torch.cat(labels)))
    return whole[0], whole[1]


def loader(split: Split, batch: int = 500) -> list[Split]:
    """Batches in their order."""
    return list(zip(split[0].split(batch), split[1].split(batch), strict=True))


def mean_loss(model: nn.Module, batches: list[Split]) -> float:
    """The mean cross-entropy in evaluation mode."""
    model.eval()
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(model(x), y, reduction="sum") for x, y in batches]
    return float(sum(losses)) / sum(len(y) for _, y in batches)


class Reached(Exception):
    """Training has come to its loss."""


def train(
    recipe: Recipe, split: Split, target: float, most_epochs: int
) -> tuple[nn.Module, int, bool]:
    """Trains until the loss of the measured examples is at most the target.

    Returns the network, its epochs, and whether it reached the target.
    """
    torch.manual_seed(recipe.seed)
    model = StridedNet()
    measured = loader((split[0][:MEASURED], split[1][:MEASURED]))
    epochs = 0

    def validate(network: nn.Module) -> Mapping[str, float]:
        nonlocal epochs
        epochs += 1
        loss = mean_loss(network, measured)
        if loss <= target:
            raise Reached
        if epochs % 10 == 0:
            print(f"{recipe.name}: epoch {epochs}, training loss {loss:.3f}", flush=True)
        return {"measured_loss": loss}

    try:
        ll.sgd(
            model,
            TASK,
            ll.Batches(split, batch_size=recipe.batch, seed=recipe.seed),
            epochs=most_epochs,
            optimizer=lambda parameters: torch.optim.SGD(
                parameters, lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay
            ),
            sam=recipe.sam,
            validate=validate,
            seed=recipe.seed,
        )
    except Reached:
        return model, epochs, True
    return model, epochs, False
