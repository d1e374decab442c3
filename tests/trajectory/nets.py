"""A network with buffers, and its iterates."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, features=5):
        super().__init__()
        self.first = nn.Linear(features, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x))))


def stepped(model, seed):
    """Weights and buffers that depend on the seed."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
        model.norm.running_mean.copy_(torch.randn(4, generator=g))
        model.norm.num_batches_tracked.fill_(seed)
    return model
