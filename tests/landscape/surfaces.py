"""Surfaces, and shapes on them, that several tests look at."""

import math

import torch
from torch import nn

import lowland as ll
from tests.models import blobs, conv_bn, generator, images, mlp, targets

STRATEGIES = ("points", "batches", "vmap")
FEATURES = 4
NOISE = 0.5 * math.log(2 * math.pi)


def bowl():
    """A linear model without bias, of unit noise: L is exactly quadratic; and L in float64."""
    examples = targets(features=FEATURES)
    surface = ll.LossSurface(
        nn.Linear(FEATURES, 1, bias=False), ll.Regression(noise_variance=1.0), examples
    )
    x = torch.cat([x for x, _ in examples]).double()
    y = torch.cat([y for _, y in examples]).double()

    def loss(w):  # (n, P) float64 -> (n,)
        return NOISE + 0.5 * ((x @ w.T - y) ** 2).mean(0)

    return surface, loss


def ends(size=FEATURES, n=2, scale=1.0):
    g = torch.Generator().manual_seed(3)
    return list(scale * torch.randn(n, size, generator=g))


def quadratic(examples=20, features=3):
    """L(w) = ½ log 2π + |Xw - y|² / 2n, in float64 for the oracle."""
    g = generator()
    x, y = torch.randn(examples, features, generator=g), torch.randn(examples, 1, generator=g)
    net = nn.Linear(features, 1, bias=False)
    surface = ll.LossSurface(
        net, ll.Regression(noise_variance=1.0), [(x[:13], y[:13]), (x[13:], y[13:])]
    )

    def oracle(w):
        error = x.double() @ w.double() - y[:, 0].double()
        return NOISE + 0.5 * error.square().mean()

    return surface, oracle


def network():
    torch.manual_seed(0)
    return conv_bn()


def normed():
    net = network()
    surface = ll.LossSurface(net, ll.Classification(), images())
    w0 = surface.layout.flatten(net)
    return surface, ll.Line(w0, w0.roll(1))


def net_surface(**options):
    torch.manual_seed(0)
    return ll.LossSurface(mlp(), ll.Classification(), blobs(), **options)


def plane_of(surface, seed=0, scale=0.5):
    g = generator(seed)
    return ll.Plane.through(*(scale * torch.randn(surface.layout.size, generator=g) for _ in "abc"))


def one_by_one(shape, surface, result, **options):
    """The same losses from `surface(w)`."""
    if result.y is None:
        return torch.stack([surface(shape(t), **options) for t in result.x])
    losses = [[surface(shape(torch.stack([x, y])), **options) for x in result.x] for y in result.y]
    return torch.stack([torch.stack(row) for row in losses])


class Overflows(nn.Module):
    """Infinite outputs, then NaN losses, where the first weight is above 80."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x) * self.scale[0].exp() + self.scale[1]


def overflowing():
    torch.manual_seed(0)
    net = Overflows()
    surface = ll.LossSurface(net, ll.Classification(), blobs())
    w = surface.layout.flatten(net)
    u, v = torch.zeros(2, len(w))
    u[0], v[2] = 1, 1
    return surface, ll.Plane(w, u, v)
