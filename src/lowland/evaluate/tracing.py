"""A function of tensors as a graph of its operations, without the cost of modules and vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_NEW_MEMORY = {"bmm", "mm", "baddbmm", "addmm", "convolution"}  # their results are new tensors
_SAME_MEMORY = {"_unsafe_view", "view", "transpose", "expand", "add_", "mul_", "relu_"}
_IN_PLACE = {"relu": "relu_", "tanh": "tanh_", "sigmoid": "sigmoid_", "silu": "silu_"}


def trace_function(
    function: Callable[[Tensor], Tensor], example: Tensor
) -> Callable[[Tensor], Tensor]:
    """The operations that `function` runs on `example`, for tensors of the same shape.

    Small networks spend more time in modules and in vmap than in operations. The graph of
    `make_fx` has the operations alone; those on data alone are computed once, and activations are
    computed in place where they follow a matrix product that nothing else reads. Branches of Python
    are taken as for `example`. The function itself is returned where it cannot be traced, or where
    the graph gives other values. For use without gradients.

    >>> double = trace_function(lambda x: 2 * x, torch.ones(3))
    >>> double(torch.tensor([1.0, 2.0, 3.0]))
    tensor([2., 4., 6.])
    """
    # takes most of a second to import, which few programs need
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        try:
            expected = function(example)
            graph = make_fx(lambda weights: function(weights))(example)  # make_fx takes no methods
            _fold(graph)
            _in_place(graph.graph)
            graph.recompile()
            same = torch.allclose(graph(example), expected, rtol=1e-6, equal_nan=True)
        except Exception:  # models, vmap and tracing raise errors of any kind
            return function
    return graph if same else function


def _fold(module: torch.fx.GraphModule) -> None:
    """Computes operations on data alone once, and removes views that change nothing."""
    constants: dict[torch.fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            constants[node] = getattr(module, node.target)
        elif isinstance(node.target, torch._ops.OpOverload):
            inputs = node.all_input_nodes
            is_constant = bool(inputs) and all(n in constants for n in inputs)
            if node.target._schema.is_mutable:
                if is_constant:  # every call would change it again
                    return
            elif is_constant and torch.Tag.nondeterministic_seeded not in node.target.tags:
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), constants.__getitem__)
                constants[node] = node.target(*args, **kwargs)
    for i, (node, value) in enumerate(constants.items()):
        if node.op != "get_attr" and isinstance(value, Tensor):
            module.register_buffer(f"_folded{i}", value, persistent=False)
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(module.graph.get_attr(f"_folded{i}"))
    for node in list(module.graph.nodes):
        if _name(node) in ("expand", "view", "_unsafe_view"):
            before, after = (n.meta.get("tensor_meta") for n in (node.args[0], node))
            if before is not None and after is not None and before.shape == after.shape:
                node.replace_all_uses_with(node.args[0])
    module.graph.eliminate_dead_code()


def _in_place(graph: torch.fx.Graph) -> None:
    """Computes activations in place where nothing else reads their input."""
    for node in graph.nodes:
        packet = getattr(node.target, "overloadpacket", None)
        if packet is None or _name(node) not in _IN_PLACE or not _has_one_reader(node.args[0]):
            continue
        node.target = getattr(torch.ops.aten, _IN_PLACE[_name(node)]).default


def _has_one_reader(node: torch.fx.Node) -> bool:
    """Whether nothing else reads a tensor, or one that shares its memory, since it was made."""
    while len(node.users) == 1:
        name = _name(node)
        if name in _NEW_MEMORY:
            return True
        if name not in _SAME_MEMORY:
            return False
        node = node.args[0]  # type: ignore[assignment]
    return False


def _name(node: torch.fx.Node) -> str:
    packet: Any = getattr(node.target, "overloadpacket", None)
    return "" if packet is None else packet.__name__
