"""The groups of hidden units of a network that may be permuted, and their places in parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lowland.alignment.axes import Axis, Dim, factors_of, fix, fixed, free
from lowland.alignment.example_inputs import model_inputs
from lowland.alignment.rules import Dims, rule_of
from lowland.core.layout import ParamLayout
from lowland.core.template import Template
from lowland.errors import ConfigError

_SUPPORTED = (
    "align follows linear and convolutional layers, BatchNorm and LayerNorm, activations, pooling, "
    "dropout, embeddings, reshapes, sums and means, and residual connections; not fused attention, "
    "LSTM, GroupNorm or grouped convolutions"
)


@dataclass(frozen=True)
class Place:
    """A tensor of the model, reshaped so that each dimension lists one group of units or none.

    It has no dimensions of size 1.
    """

    shape: tuple[int, ...]
    groups: tuple[int | None, ...]  # the number of the group, dimension by dimension

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Groups:
    """Groups of hidden units: all tensors of a group are permuted together.

    Attributes:
        names: the first parameter of each group. sizes: how many units each has.
        parameters, buffers: the places of groups in tensors, by the tensors' names.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    parameters: dict[str, Place]
    buffers: dict[str, Place]


@torch.no_grad()
def unit_groups(model: nn.Module, layout: ParamLayout, inputs: Any = None) -> Groups:
    """The groups of units of `model` that can change places without changing its function.

    They follow from one forward pass in evaluation mode: the rule of each operation states which
    dimensions of which tensors list the same units (see `rules`). Units of inputs, outputs, frozen
    parameters and buffers other than BatchNorm's statistics are not permuted, nor are units that
    are sliced or concatenated.

    Args:
        inputs: a batch: a tensor, a tuple of arguments, or a dict of keyword arguments; None:
            zeros of a shape that fits its first layer.

    Raises:
        ConfigError: an operation without a rule, no input that fits, nothing to permute.

    >>> net = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 1))
    >>> unit_groups(net, ParamLayout(net)).parameters["2.weight"]
    Place(shape=(5,), groups=(0,))
    """
    template = Template(model, device="cpu")
    weights = layout.materialise(layout.flatten(model).cpu())
    parameters = {name: value.clone() for name, value in weights.items()}
    statistics = {name: template.buffers[name].clone() for name in template.statistics}
    args, kwargs = model_inputs(template, parameters, inputs)
    trace = Trace()
    for tensor in (*parameters.values(), *statistics.values()):
        trace.record(tensor, free(*tensor.shape))
    with trace.track_modules(template.module), trace:
        out = template(parameters, statistics, args, kwargs)
    results = _output_tensors(out, set())
    if not results:
        raise ConfigError(f"the model returned no tensor that align could find, but {type(out)}.")
    for tensor in results:
        for dim in trace.dims_of(tensor):
            fix(dim)
    trace.require_supported()
    for tensor in parameters.values():
        if (
            id(tensor) not in trace.used
        ):  # such as heads for training alone: not traced, not permuted
            for dim in trace.dims_of(tensor):
                fix(dim)
    return _collect_groups(trace, parameters, statistics)


class Trace(TorchDispatchMode):
    """Follows the dimensions of tensors through the operations that run inside of it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dims: dict[int, Dims | None] = {}  # by id; None: a by-product without a rule
        self.used: set[int] = set()
        self._references: list[Any] = []  # an id is a tensor's own as long as it lives
        self._module_stack: list[str] = []
        self._unsupported: list[tuple[str, list[Dim]]] = []

    def record(self, tensor: Tensor, dims: Dims | None) -> None:
        """Stores the dimensions of `tensor`."""
        self._references.append(tensor)
        self.dims[id(tensor)] = dims

    def dims_of(self, tensor: Tensor) -> Dims:
        """The dimensions of a tensor; those of an unknown one are fixed."""
        self.used.add(id(tensor))
        if id(tensor) not in self.dims:
            self.record(tensor, fixed(*tensor.shape))
        dims = self.dims[id(tensor)]
        if dims is None:
            raise ConfigError(
                f"{self._current_module()}: it uses the indices or statistics that another "
                f"operation returns beside its result, which align does not know; {_SUPPORTED}."
            )
        return dims

    def track_modules(self, module: nn.Module) -> ExitStack:
        """A context in which the trace knows which module runs."""
        hooks = ExitStack()
        for name, child in module.named_modules():
            text = f"{name} ({type(child).__name__})" if name else type(child).__name__

            def enter(*_: Any, text: str = text) -> None:
                self._module_stack.append(text)

            def leave(*_: Any) -> None:
                self._module_stack.pop()

            hooks.callback(child.register_forward_pre_hook(enter).remove)
            hooks.callback(child.register_forward_hook(leave).remove)
        return hooks

    def require_supported(self) -> None:
        """Raises `ConfigError` where an operation without a rule has units that may be permuted."""
        for message, dims in self._unsupported:
            if any(not axis.fixed for dim in dims for axis in factors_of(dim)):
                raise ConfigError(f"{message}; {_SUPPORTED}.")

    def _current_module(self) -> str:
        return self._module_stack[-1] if self._module_stack else "the model"

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        call = {
            arg.name: args[i] if i < len(args) else kwargs.get(arg.name, arg.default_value)
            for i, arg in enumerate(func._schema.arguments)
        }
        rule = rule_of(func)
        dims = None if rule is None else rule(self.dims_of, call, out)
        results = [tensor for tensor in tree_leaves(out) if isinstance(tensor, Tensor)]
        if dims is None:  # fixed results are right if the arguments are fixed
            tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            message = (
                f"{self._current_module()}: align does not know {func.overloadpacket.__name__}"
            )
            message += f" with groups={call['groups']}" if call.get("groups", 1) != 1 else ""
            self._unsupported.append((message, [d for x in tensors for d in self.dims_of(x)]))
            dims = [fixed(*tensor.shape) for tensor in results]
        dims = dims if isinstance(dims, list) else [dims]
        for i, tensor in enumerate(results):
            self.record(tensor, dims[i] if i < len(dims) else None)
        return out


def _output_tensors(out: Any, seen: set[int]) -> list[Tensor]:
    """The tensors of what a model returns: one, a nesting, or attributes of an object."""
    if isinstance(out, Tensor):
        return [out]
    if id(out) in seen:
        return []
    seen.add(id(out))
    if isinstance(out, Mapping):
        children = list(out.values())
    elif isinstance(out, list | tuple | set):
        children = list(out)
    else:
        slots = getattr(type(out), "__slots__", ())
        children = [*getattr(out, "__dict__", {}).values(), *(getattr(out, n, None) for n in slots)]
    return [tensor for value in children for tensor in _output_tensors(value, seen)]


def _collect_groups(
    trace: Trace, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor]
) -> Groups:
    numbers: dict[int, int] = {}
    names: list[str] = []
    sizes: list[int] = []
    # a group has the name of the layer whose outputs it is, before the next one's inputs
    for output in (True, False):
        for name, tensor in parameters.items():
            for place, dim in enumerate(trace.dims_of(tensor)):
                for axis in factors_of(dim) if output == (place == 0 and tensor.ndim > 1) else ():
                    if not axis.fixed and id(axis) not in numbers:
                        numbers[id(axis)] = len(names)
                        names.append(name)
                        sizes.append(axis.size)
    if not names:
        raise ConfigError(
            "the model has no hidden units that can change places: none lies between its inputs "
            "and outputs, or all are frozen, sliced or concatenated."
        )

    def places_of(tensors: Mapping[str, Tensor]) -> dict[str, Place]:
        places = {}
        for name, tensor in tensors.items():
            axes: list[Axis] = [axis for dim in trace.dims_of(tensor) for axis in factors_of(dim)]
            groups = tuple(numbers.get(id(axis)) for axis in axes)
            if any(group is not None for group in groups):
                shape = tuple(axis.size for axis in axes)
                places[name] = Place(shape, groups)
        return places

    return Groups(tuple(names), tuple(sizes), places_of(parameters), places_of(statistics))
