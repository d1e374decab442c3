"""Losses with a known Hessian, and small networks."""

import math

import torch
from torch import nn

import lowland as ll
from tests.models import generator

NOISE = 0.5 * math.log(2 * math.pi)  # the loss at the minimum of a quadratic
EIGENVALUES = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.1], dtype=torch.float64)
MINIMUM = torch.tensor([0.5, -1.0, 2.0, 0.0, -3.0], dtype=torch.float64)


def quadratic(eigenvalues=EIGENVALUES, minimum=MINIMUM):
    """L(w) = ½ log 2π + ½ Σ λ_i (w_i - m_i)², in float64."""
    x = (len(eigenvalues) * eigenvalues).sqrt().diag()
    net = nn.Linear(len(x), 1, bias=False).double()
    return ll.LossSurface(net, ll.Regression(noise_variance=1.0), [(x, x @ minimum[:, None])])


def blobs(features=3, classes=3, examples=24):
    g = generator(0)
    x = torch.randn(examples, features, generator=g)
    return [(x, torch.randint(classes, (examples,), generator=g))]


def surface_of(net, data=None, **options):
    """The surface of a network and its own weights."""
    surface = ll.LossSurface(net, ll.Classification(), data or blobs(), **options)
    return surface, surface.point(net)


def relu_net(*, between=nn.ReLU, norm=None):
    torch.manual_seed(0)
    layers = [nn.Linear(3, 6), norm(6) if norm else nn.Identity(), between(), nn.Linear(6, 3)]
    return nn.Sequential(*layers)
