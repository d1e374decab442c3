"""Random outputs, labels and examples, equal at every call."""

import torch
from torch import Tensor

from tests.models import generator


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator())


def labels(classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=generator())


def one_batch(n: int = 12, width: int = 4, classes: int = 3) -> list[tuple[Tensor, Tensor]]:
    """A loader of one batch of n examples."""
    x = torch.randn(n, width, generator=generator(1))
    return [(x, torch.randint(classes, (n,), generator=generator(2)))]
