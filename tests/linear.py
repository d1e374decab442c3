"""A linear network on twenty examples of two classes, evaluated and trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import lowland as ll

X, Y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
W = torch.linspace(-1, 1, 8)


def net() -> nn.Linear:
    return nn.Linear(3, 2)


def surface(data: Any = None, model: Any = None, **options: Any) -> ll.LossSurface:
    return ll.LossSurface(model or net(), ll.Classification(), data or [(X, Y)], **options)


def train(data: Any, model: Any = None, **options: Any) -> Any:
    return ll.sgd(model or net(), ll.Classification(), data, epochs=1, **options)
