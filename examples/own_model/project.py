"""Your own project: config.yaml refers to its model and data, `project:model`, `project:data`."""

from __future__ import annotations

import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn


class Tumours(nn.Module):
    """A network with two inputs and one logit: malignant or not."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.means = nn.Linear(10, hidden)
        self.rest = nn.Linear(20, hidden)
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, 1))

    def forward(self, means: Tensor, rest: Tensor) -> Tensor:
        """Logits (N, 1)."""
        logits: Tensor = self.head(self.means(means) + self.rest(rest))
        return logits


def model(*, hidden: int = 32) -> nn.Module:
    """A new model, with `args` from the configuration."""
    return Tumours(hidden)


def data(*, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Three splits of scikit-learn's 569 tumours.

    A split may be a dict of tensors, as here: `labels` is the target, the others are the model's
    keyword arguments. A tuple of tensors, a data set or a DataLoader work as well.
    """
    tumours = load_breast_cancer()
    x = torch.from_numpy(tumours.data).float()
    y = torch.from_numpy(tumours.target).float()[:, None]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, validation, test = order.tensor_split([250, 350])
    x = (x - x[train].mean(0)) / x[train].std(0)
    splits = {"train": train, "validation": validation, "test": test}
    return {
        name: {"means": x[index, :10], "rest": x[index, 10:], "labels": y[index]}
        for name, index in splits.items()
    }
