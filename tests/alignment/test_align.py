"""Alignment recovers permutations by hand, and of every network of the zoo."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland import zoo
from lowland.alignment.example_inputs import model_inputs
from lowland.alignment.trace import unit_groups
from lowland.core.template import Template
from tests.alignment.alignments import (
    difference,
    outputs,
    random_alignment,
    random_point,
    same_point,
)
from tests.models import CASES, Case, every_case, generator

Sequential = nn.Sequential


def permute_by_hand(
    model: nn.Module, groups: list[list[tuple[str, int, int]]], point: ll.Point
) -> ll.Point:
    """Permutes units written down by hand: [(tensor, dimension, values a unit), ...] a group."""
    layout = ll.ParamLayout(model)
    tensors = {n: t.clone() for n, t in layout.unflatten(point.weights).items()}
    tensors |= {n: t.clone() for n, t in point.buffers.items()}
    for number, group in enumerate(groups):
        first, dim, block = group[0]
        order = torch.randperm(tensors[first].shape[dim] // block, generator=generator(number))
        for name, dim, block in group:
            index = (order[:, None] * block + torch.arange(block)).reshape(-1)
            tensors[name] = tensors[name].index_select(dim, index)
    return ll.Point(layout.flatten(tensors), {name: tensors[name] for name in point.buffers})


def norm(name: str) -> list[tuple[str, int, int]]:
    return [(f"{name}.{end}", 0, 1) for end in ("weight", "bias", "running_mean", "running_var")]


def flattened() -> nn.Module:
    return Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(6 * 9, 7), nn.Tanh(), nn.Linear(7, 3),
    )  # fmt: skip


HAND = {
    "mlp": (
        lambda: zoo.MLP(inputs=4, outputs=2, widths=(8, 6)),
        torch.randn(3, 4, generator=generator()),
        [
            [("1.weight", 0, 1), ("1.bias", 0, 1), ("3.weight", 1, 1)],
            [("3.weight", 0, 1), ("3.bias", 0, 1), ("5.weight", 1, 1)],
        ],
    ),
    "conv, BatchNorm, flatten, linear": (
        flattened,
        torch.randn(3, 1, 8, 8, generator=generator()),
        [
            [("0.weight", 0, 1), ("0.bias", 0, 1), *norm("1"), ("5.weight", 1, 9)],
            [("5.weight", 0, 1), ("5.bias", 0, 1), ("7.weight", 1, 1)],
        ],
    ),
    "PreResNet": (
        lambda: zoo.PreResNet(depth=8, width=4),
        torch.randn(3, 3, 16, 16, generator=generator()),
        [
            [
                ("stem.weight", 0, 1), *norm("blocks.0.norm1"), ("blocks.0.conv1.weight", 1, 1),
                ("blocks.0.conv2.weight", 0, 1), *norm("blocks.1.norm1"),
                ("blocks.1.conv1.weight", 1, 1), ("blocks.1.shortcut.weight", 1, 1),
            ],
            [
                ("blocks.1.conv2.weight", 0, 1), ("blocks.1.shortcut.weight", 0, 1),
                *norm("blocks.2.norm1"), ("blocks.2.conv1.weight", 1, 1),
                ("blocks.2.shortcut.weight", 1, 1),
            ],
            [
                ("blocks.2.conv2.weight", 0, 1), ("blocks.2.shortcut.weight", 0, 1), *norm("norm"),
                ("head.weight", 1, 1),
            ],
            *[
                [(f"blocks.{b}.conv1.weight", 0, 1), *norm(f"blocks.{b}.norm2"),
                 (f"blocks.{b}.conv2.weight", 1, 1)]
                for b in range(3)
            ],
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HAND)
def test_units_permuted_by_hand_are_found_again_bit_by_bit(name: str) -> None:
    build, batch, groups = HAND[name]
    torch.manual_seed(0)
    model = build()
    point = random_point(model)
    permuted_point = permute_by_hand(model, groups, point)
    assert (permuted_point.weights != point.weights).float().mean() > 0.5
    before, after = (outputs(model, p, (batch,), {}) for p in (point, permuted_point))
    assert difference(before, after) < 1e-5
    assert same_point(ll.align(model, point, permuted_point), point)
    assert torch.equal(ll.align(model, point.weights, permuted_point.weights), point.weights)


ZOO = {
    # network, groups of units
    "MLP": (lambda: zoo.MLP(inputs=5, outputs=3, widths=(20, 10, 10)), 3),
    "ConvNet": (zoo.ConvNet, 2),
    "VGG16": (lambda: zoo.VGG16(width=0.125), 13 + 2),
    "PreResNet, basic": (lambda: zoo.PreResNet(depth=20, width=8), 3 + 9),
    "PreResNet, bottleneck": (lambda: zoo.PreResNet(depth=20, block="bottleneck", width=8), 4 + 12),
    "WideResNet": (lambda: zoo.WideResNet(depth=10, width=1, dropout=0.1), 3 + 3),
    "uci_net": (lambda: zoo.uci_net(inputs=6), 1),
}


@pytest.mark.parametrize("name", ZOO)
def test_every_network_of_the_zoo_comes_back(name: str) -> None:
    build, groups = ZOO[name]
    torch.manual_seed(0)
    model = build()
    point, order = random_point(model), random_alignment(model)
    assert len(order.groups.sizes) == groups
    permuted_point = order.apply(point)
    layout = ll.ParamLayout(model)
    (batch,), _ = model_inputs(Template(model), layout.materialise(point.weights))
    batch = torch.randn(batch.shape, generator=generator())
    before, after = (outputs(model, p, (batch,), {}) for p in (point, permuted_point))
    assert difference(before, after) < 1e-4
    assert (permuted_point.weights != point.weights).float().mean() > 0.5
    assert same_point(ll.align(model, point, permuted_point), point)


def test_units_of_large_networks_are_found_without_their_data() -> None:
    for net, groups in ((zoo.ConvFC(), 3 + 2), (zoo.PreResNet(depth=164, width=2), 4 + 108)):
        assert len(unit_groups(net, ll.ParamLayout(net)).sizes) == groups


@every_case
def test_any_model_keeps_its_function_or_is_refused(case: Case) -> None:
    refused = {"attention": "MultiheadAttention", "transformer": "MultiheadAttention",
               "two_inputs": "no hidden units", "frozen": "frozen",
               "scaled": "no hidden units", "spectral": "does not know mv",
               "spectral_by_hook": "does not know mv"}  # fmt: skip
    model, task = case.model(), case.task()
    parts = task.parts(case.batches()[0])
    inputs = dict(parts.kwargs) or tuple(parts.args)
    if case.name in refused:
        with pytest.raises(ll.ConfigError, match=refused[case.name]):
            random_alignment(model, inputs)
        return
    point, order = random_point(model), random_alignment(model, inputs)
    permuted_point = order.apply(point)
    assert not torch.equal(permuted_point.weights, point.weights)
    before, after = (
        outputs(model, p, parts.args, dict(parts.kwargs)) for p in (point, permuted_point)
    )
    assert difference(before, after) < 1e-4
    assert same_point(ll.align(model, point, permuted_point, inputs=inputs), point)


def test_the_cases_are_all_there() -> None:
    assert {"shared_bn", "tied_lm", "weight_norm", "data_parallel"} <= {c.name for c in CASES}
