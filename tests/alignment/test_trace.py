"""Alignment of networks of other structures: what is traced, and what it would be without."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lowland as ll
from lowland.alignment import rules
from lowland.alignment.axes import factors_of, fixed, free, unify
from tests.alignment.alignments import (
    difference,
    outputs,
    random_alignment,
    random_point,
    same_point,
)
from tests.models import conv_bn, generator

Sequential = nn.Sequential


class Residual(nn.Module):
    """A weight from a group of units to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return self.last(h + torch.tanh(self.inner(h)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.RNN(4, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rnn(x)[0][-1])


class Excited(nn.Module):
    """Squeeze and excitation: channels weighed by a function of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(2, 8, 3), nn.Linear(8, 4), nn.Linear(4, 8)
        self.last, self.scale = nn.Linear(8, 3), nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv(x)) * self.scale
        weights = torch.sigmoid(self.up(F.relu(self.down(h.mean((2, 3))))))
        return self.last((h * weights[:, :, None, None]).amax((2, 3)))


class Padded(nn.Module):
    """A shortcut without parameters: every other pixel, and channels of zeros on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.c, self.last = nn.Conv2d(8, 6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = F.relu(self.b(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        return self.last(F.relu(self.c(x)).mean((2, 3)))


class Dense(nn.Module):
    """Every layer sees all before it: concatenated units stay."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(4, 8), nn.Linear(12, 9), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.b(torch.cat([x, torch.relu(self.a(x))], 1))))


class HandAttention(nn.Module):
    """Two heads, written out: heads, and units inside of heads, are groups."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv = nn.Linear(4, 8), nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.norm, self.last = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, 4)
        h = self.norm(self.embed(x))
        q, k, v = (f(h).unflatten(-1, (2, 4)).transpose(1, 2) for f in self.qkv)
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.last(mixed.transpose(1, 2).flatten(2).mean(1))


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(11, 8), nn.Parameter(torch.randn(8, 8))
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids) + self.places
        return (h + self.down(F.gelu(self.up(h)))) @ self.embed.weight.T


STRUCTURES = {
    # network, shape of a batch, sizes of the groups
    "residual": (Residual, (5, 4), [16]),
    "recurrent": (Recurrent, (5, 2, 4), [9]),
    "excited": (Excited, (2, 2, 8, 8), [4, 8]),
    "padded": (Padded, (2, 2, 8, 8), [6]),
    "dense": (Dense, (5, 4), [9]),
    "attention by hand": (HandAttention, (2, 5, 4), [2, 4, 4, 8]),
    "tied embedding": (Positions, (2, 8), [8, 12]),
    "depthwise": (
        lambda: Sequential(
            nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 12, 3, groups=6),
            nn.ReLU6(), nn.Conv2d(12, 5, 1), nn.Flatten(), nn.Linear(5 * 16, 3),
        ), (2, 2, 8, 8), [5, 6],
    ),
    "other layers": (
        lambda: Sequential(
            nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6, affine=True),
            nn.PReLU(6), nn.ConvTranspose2d(6, 5, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(2),
            nn.Dropout2d(), nn.Flatten(), nn.Linear(20, 7), nn.LayerNorm(7), nn.Softmax(1),
            nn.Linear(7, 3), nn.LogSoftmax(1),
        ), (2, 2, 8, 8), [5, 6, 7],
    ),
    "three dimensions": (
        lambda: Sequential(
            nn.Conv3d(1, 6, 3), nn.BatchNorm3d(6), nn.MaxPool3d(2), nn.Upsample(scale_factor=2),
            nn.ReflectionPad3d(1), nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(6, 4),
            nn.ELU(inplace=True), nn.Linear(4, 2),
        ), (2, 1, 8, 8, 8), [4, 6],
    ),
    "unflattened": (
        lambda: Sequential(
            nn.Linear(4, 24), nn.ReLU(), nn.Unflatten(1, (4, 6)), nn.Linear(6, 5), nn.Tanh(),
            nn.Flatten(), nn.Linear(20, 2),
        ), (3, 4), [4, 5, 6],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_other_structures_keep_their_function_and_come_back(name: str) -> None:
    build, shape, sizes = STRUCTURES[name]
    torch.manual_seed(0)
    model = build()
    batch = torch.randn(shape, generator=generator())
    batch = torch.arange(16).reshape(shape) % 11 if name == "tied embedding" else batch
    point, order = random_point(model), random_alignment(model, batch)
    assert sorted(order.groups.sizes) == sizes
    permuted_point = order.apply(point)
    before, after = (outputs(model, p, (batch,), {}) for p in (point, permuted_point))
    assert difference(before, after) < 1e-4
    assert same_point(ll.align(model, point, permuted_point, inputs=batch), point)


def test_a_trace_that_forgets_residual_sums_changes_the_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Residual()
    point, batch = random_point(model), torch.randn(5, 4, generator=generator())
    right = outputs(model, point, (batch,), {})
    assert (
        difference(right, outputs(model, random_alignment(model).apply(point), (batch,), {})) < 1e-5
    )
    monkeypatch.setattr(rules, "unify", lambda a, b: None)
    broken = random_alignment(model)
    assert difference(right, outputs(model, broken.apply(point), (batch,), {})) > 1e-2


def test_statistics_left_behind_change_the_function() -> None:
    model, batch = conv_bn(), torch.randn(3, 2, 5, 5, generator=generator())
    point = random_point(model)
    permuted_point = random_alignment(model).apply(point)
    right = outputs(model, point, (batch,), {})
    assert difference(right, outputs(model, permuted_point, (batch,), {})) < 1e-5
    broken = ll.Point(permuted_point.weights, point.buffers)
    assert difference(right, outputs(model, broken, (batch,), {})) > 1e-2


def test_blocks_that_overlap_are_fixed() -> None:
    two, three, flat = free(2)[0], free(3)[0], free(6)[0]
    unify(flat, two + three)
    unify(flat, three + two)  # (2, 3) and (3, 2): only the order that is there suits both
    assert all(axis.fixed for axis in factors_of(flat))
    one, other = free(4)[0], fixed(4)[0]
    unify(one, other)
    assert factors_of(one) == factors_of(other)
    assert factors_of(one)[0].fixed


class Unpools(nn.Module):
    """Indices of one layer's maxima place another's values: their channels belong together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, places = self.pool(torch.relu(self.first(x)))
        return self.last(self.unpool(torch.relu(self.inner(h)), places)).mean((2, 3))


def test_unpooling_is_not_taken_for_pooling():
    torch.manual_seed(0)
    model = Unpools()
    layout = ll.ParamLayout(model)
    one, other = (layout.flatten(Unpools()) for _ in range(2))
    with pytest.raises(ll.ConfigError, match="unpool"):
        ll.align(model, one, other, inputs=torch.randn(4, 1, 8, 8))
