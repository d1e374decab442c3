"""A linear network with Gaussian noise, whose posterior in a subspace is known."""

from __future__ import annotations

import math

import torch
from torch import nn

import lowland as ll


def problem(rank=2, *, rows=40, inputs=4, noise=0.3, batch_size=40, seed=0):
    """A surface, a subspace, and the posterior's mean, covariance and log evidence at T."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=g)
    y = x @ torch.randn(inputs, 1, generator=g) + noise**0.5 * torch.randn(rows, 1, generator=g)
    net = nn.Linear(inputs, 1, bias=False)
    batches = [(a, b) for a, b in zip(x.split(batch_size), y.split(batch_size), strict=True)]
    surface = ll.LossSurface(net, ll.Regression(noise_variance=noise), batches)
    sub = ll.Subspace(
        torch.randn(inputs, generator=g), 0.7 * torch.randn(rank, inputs, generator=g)
    )

    def truth(temperature, scale):
        design = x.double() @ sub.basis.double().T  # (rows, k)
        rest = (y[:, 0] - x @ sub.center).double()
        k = sub.k
        precision = design.T @ design / (noise * temperature) + torch.eye(k) / scale**2
        covariance = torch.linalg.inv(precision)
        mean = covariance @ design.T @ rest / (noise * temperature)
        # the integral of N(rest; design z, noise)^(1/T) N(z; 0, scale²)
        gap = rest @ rest / (noise * temperature) - mean @ precision @ mean
        log = -0.5 * gap - rows / temperature * 0.5 * math.log(2 * math.pi * noise)
        log += 0.5 * torch.logdet(covariance) - k * math.log(scale)
        return mean, covariance, float(log)

    return surface, sub, truth
