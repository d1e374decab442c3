"""Which hidden units of a network may be permuted, and where in its parameters they stand."""

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

from lowland.core.layout import ParamLayout
from lowland.core.template import Template
from lowland.errors import ConfigError
from lowland.landscape.axes import Axis, Dim, fix, fixed, free, roots
from lowland.landscape.inputs import arguments
from lowland.landscape.rules import Dims, rule_of

_KNOWN = (
    "align follows linear and convolutional layers, BatchNorm and LayerNorm, activations, pooling, "
    "dropout, embeddings, reshapes, sums and means, and residual connections; not fused attention, "
    "LSTM, GroupNorm or grouped convolutions"
)


@dataclass(frozen=True)
class Place:
    """A tensor of the model, reshaped so that each dimension lists one group of units or none.

    Dimensions of size 1 are left out.
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
        names: of the first parameter of each group. sizes: units.
        parameters, buffers: where the groups stand, by the tensors' names.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    parameters: dict[str, Place]
    buffers: dict[str, Place]


@torch.no_grad()
def units_of(model: nn.Module, layout: ParamLayout, inputs: Any = None) -> Groups:
    """The groups of units of `model` that can change places without changing its function.

    Found from one forward pass in evaluation mode: every operation says which dimensions of which
    tensors list the same units (see `rules`). Those of inputs, outputs, frozen parameters and
    buffers other than BatchNorm's statistics stay as they are, and so do units that are sliced or
    concatenated.

    Args:
        inputs: what the model takes: a tensor, a tuple of arguments, or a dict of named ones; None:
            zeros of a shape that fits its first layer.

    Raises:
        ConfigError: an operation that no rule is known for, no input that fits, nothing to permute.

    >>> net = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 1))
    >>> units_of(net, ParamLayout(net)).parameters["2.weight"]
    Place(shape=(5,), groups=(0,))
    """
    template = Template(model, device="cpu")
    weights = layout.materialise(layout.flatten(model).cpu())
    parameters = {name: value.clone() for name, value in weights.items()}
    statistics = {name: template.buffers[name].clone() for name in template.statistics}
    args, kwargs = arguments(template, parameters, inputs)
    trace = Trace()
    for tensor in (*parameters.values(), *statistics.values()):
        trace.note(tensor, free(*tensor.shape))
    with trace.naming(template.module), trace:
        out = template(parameters, statistics, args, kwargs)
    results = _tensors(out, set())
    if not results:
        raise ConfigError(f"the model returned no tensor that align could find, but {type(out)}.")
    for tensor in results:
        for dim in trace.of(tensor):
            fix(dim)
    trace.require_known()
    for tensor in parameters.values():
        if id(tensor) not in trace.read:  # such as heads for training alone: not seen, not moved
            for dim in trace.of(tensor):
                fix(dim)
    return _grouped(trace, parameters, statistics)


class Trace(TorchDispatchMode):
    """Follows the dimensions of tensors through the operations that run inside of it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dims: dict[int, Dims | None] = {}  # by id; None: a by-product that no rule is about
        self.read: set[int] = set()
        self._kept: list[Any] = []  # an id belongs to one tensor as long as that lives
        self._running: list[str] = []
        self._unknown: list[tuple[str, list[Dim]]] = []

    def note(self, tensor: Tensor, dims: Dims | None) -> None:
        """The dimensions of `tensor` are these."""
        self._kept.append(tensor)
        self.dims[id(tensor)] = dims

    def of(self, tensor: Tensor) -> Dims:
        """The dimensions of a tensor; those of one that is not known are fixed."""
        self.read.add(id(tensor))
        if id(tensor) not in self.dims:
            self.note(tensor, fixed(*tensor.shape))
        dims = self.dims[id(tensor)]
        if dims is None:
            raise ConfigError(
                f"{self._where()}: it uses the indices or statistics that another operation gives "
                f"beside its result, which align does not know; {_KNOWN}."
            )
        return dims

    def naming(self, module: nn.Module) -> ExitStack:
        """While it is open, the trace knows which module runs."""
        hooks = ExitStack()
        for name, one in module.named_modules():
            text = f"{name} ({type(one).__name__})" if name else type(one).__name__

            def enter(*_: Any, text: str = text) -> None:
                self._running.append(text)

            def leave(*_: Any) -> None:
                self._running.pop()

            hooks.callback(one.register_forward_pre_hook(enter).remove)
            hooks.callback(one.register_forward_hook(leave).remove)
        return hooks

    def require_known(self) -> None:
        """Raises `ConfigError` where an operation that is not known met units that may move."""
        for what, dims in self._unknown:
            if any(not axis.fixed for dim in dims for axis in roots(dim)):
                raise ConfigError(f"{what}; {_KNOWN}.")

    def _where(self) -> str:
        return self._running[-1] if self._running else "the model"

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
        found = None if rule is None else rule(self.of, call, out)
        results = [tensor for tensor in tree_leaves(out) if isinstance(tensor, Tensor)]
        if found is None:  # results that are fixed are right if the arguments are
            given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            what = f"{self._where()}: align does not know {func.overloadpacket.__name__}"
            what += f" with groups={call['groups']}" if call.get("groups", 1) != 1 else ""
            self._unknown.append((what, [dim for tensor in given for dim in self.of(tensor)]))
            found = [fixed(*tensor.shape) for tensor in results]
        many = found if isinstance(found, list) else [found]
        for i, tensor in enumerate(results):
            self.note(tensor, many[i] if i < len(many) else None)
        return out


def _tensors(out: Any, seen: set[int]) -> list[Tensor]:
    """The tensors of what a model returns: one, a nesting, or attributes of an object."""
    if isinstance(out, Tensor):
        return [out]
    if id(out) in seen:
        return []
    seen.add(id(out))
    if isinstance(out, Mapping):
        inside = list(out.values())
    elif isinstance(out, list | tuple | set):
        inside = list(out)
    else:
        slots = getattr(type(out), "__slots__", ())
        inside = [*getattr(out, "__dict__", {}).values(), *(getattr(out, n, None) for n in slots)]
    return [tensor for value in inside for tensor in _tensors(value, seen)]


def _grouped(
    trace: Trace, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor]
) -> Groups:
    numbers: dict[int, int] = {}
    names: list[str] = []
    sizes: list[int] = []
    # a layer's outputs give a group its name, rather than the next one's inputs
    for output in (True, False):
        for name, tensor in parameters.items():
            for place, dim in enumerate(trace.of(tensor)):
                for axis in roots(dim) if output == (place == 0 and tensor.ndim > 1) else ():
                    if not axis.fixed and id(axis) not in numbers:
                        numbers[id(axis)] = len(names)
                        names.append(name)
                        sizes.append(axis.size)
    if not names:
        raise ConfigError(
            "the model has no hidden units that can change places: none lies between its inputs "
            "and outputs, or all are frozen, sliced or concatenated."
        )

    def placed(tensors: Mapping[str, Tensor]) -> dict[str, Place]:
        found = {}
        for name, tensor in tensors.items():
            axes: list[Axis] = [axis for dim in trace.of(tensor) for axis in roots(dim)]
            groups = tuple(numbers.get(id(axis)) for axis in axes)
            if any(group is not None for group in groups):
                shape = tuple(axis.size for axis in axes)
                found[name] = Place(shape, groups)
        return found

    return Groups(tuple(names), tuple(sizes), placed(parameters), placed(statistics))
