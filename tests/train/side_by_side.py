"""Small networks and the data that each of them is trained on."""

import torch
from torch import nn

import lowland as ll
from lowland.zoo import ConvNet

M = 4


def seeded(make, count=M):
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(make())
    return made


def mlp():
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))


def head():
    return ll.GaussianHead(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)))


def convnet():
    return ConvNet(channels=1, widths=(3, 4), classes=3)


def table(seed=0, rows=22):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=g)
    return x, x[:, :1] ** 2 + 0.1 * torch.randn(rows, 1, generator=g)


def pictures(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(22, 1, 4, 4, generator=g), torch.randint(3, (22,), generator=g)


def batches(rows=table, **options):
    """Each network its own examples and its own order."""
    return [
        ll.Batches(rows(m), **({"batch_size": 5, "seed": 10 + m, "drop_last": False} | options))
        for m in range(M)
    ]


REGRESSION = ll.Regression(noise_variance=0.5)
