"""Random points, random orders of their hidden units, and comparisons of them."""

import torch
from torch import Tensor, nn

import lowland as ll
from lowland.alignment import Alignment
from lowland.alignment.trace import unit_groups
from lowland.core.template import Template
from tests.models import generator


def random_point(model: nn.Module, seed: int = 0) -> ll.Point:
    """Weights without special values, and BatchNorm statistics without special values."""
    g = generator(seed)
    layout, template = ll.ParamLayout(model), Template(model)
    w = layout.flatten(model)
    buffers = {
        name: b + torch.rand(b.shape, generator=g) if name in template.statistics else b
        for name, b in template.buffers.items()
    }
    statistics = {n: b for n, b in buffers.items() if not n.endswith("num_batches_tracked")}
    return ll.Point(w + 0.1 * w.abs().mean() * torch.randn(w.shape, generator=g), statistics)


def random_alignment(model: nn.Module, inputs: object = None) -> Alignment:
    """A random order of every group of units."""
    layout = ll.ParamLayout(model)
    groups = unit_groups(model, layout, inputs)
    order = tuple(torch.randperm(n, generator=generator(1)) for n in groups.sizes)
    return Alignment(layout, groups, order, 0.0, 0.0, 0)


def outputs(model: nn.Module, point: ll.Point, args: tuple, kwargs: dict) -> Tensor:
    """What the model gives in evaluation mode, in float64 or as near as its layers come."""
    parameters = ll.ParamLayout(model).materialise(point.weights)
    out = Template(model)(parameters, point.buffers or {}, args, kwargs)
    out = out.get("logits") if isinstance(out, dict) else getattr(out, "logits", out)
    return out.detach()


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max())


def same_point(a: ll.Point, b: ll.Point) -> bool:
    return torch.equal(a.weights, b.weights) and all(
        torch.equal(a.buffers[name], b.buffers[name]) for name in b.buffers
    )
