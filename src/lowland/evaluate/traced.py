"""A function of tensors as its bare operations: without modules, python and vmap between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_FRESH = {"bmm", "mm", "baddbmm", "addmm", "convolution"}  # whose results nobody else holds
_SAME = {"_unsafe_view", "view", "transpose", "expand", "add_", "mul_", "relu_"}
_IN_PLACE = {"relu": "relu_", "tanh": "tanh_", "sigmoid": "sigmoid_", "silu": "silu_"}


def traced(function: Callable[[Tensor], Tensor], example: Tensor) -> Callable[[Tensor], Tensor]:
    """The operations that `function` did on `example`, to be done on tensors of the same shape.

    Around small networks more time goes into modules and into vmap than into operations: here the
    latter are left, as `make_fx` notes them, without those on data alone, and activations are
    computed in place where they follow a matrix product that nothing else reads. What Python
    decided on the way is decided for good. Where that cannot be, or other values come out, the
    function itself is given back. For use without gradients.

    >>> double = traced(lambda x: 2 * x, torch.ones(3))
    >>> double(torch.tensor([1.0, 2.0, 3.0]))
    tensor([2., 4., 6.])
    """
    # takes most of a second to import, which few programs need
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        try:
            expected = function(example)
            graph = make_fx(lambda weights: function(weights))(example)  # no methods, it says
            _fold(graph)
            _in_place(graph.graph)
            graph.recompile()
            same = torch.allclose(graph(example), expected, rtol=1e-6, equal_nan=True)
        except (
            Exception
        ):  # models do what they like, and vmap and tracing have as many ways to refuse
            return function
    return graph if same else function


def _fold(module: torch.fx.GraphModule) -> None:
    """What follows from the data alone is worked out once, and views that change nothing go."""
    known: dict[torch.fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(module, node.target)
        elif isinstance(node.target, torch._ops.OpOverload):
            constant = bool(node.all_input_nodes) and all(n in known for n in node.all_input_nodes)
            if node.target._schema.is_mutable:
                if constant:  # it would be changed anew at every call
                    return
            elif constant and torch.Tag.nondeterministic_seeded not in node.target.tags:
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), known.__getitem__)
                known[node] = node.target(*args, **kwargs)
    for i, (node, value) in enumerate(known.items()):
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
    """Activations of products that nothing else reads, in place."""
    for node in graph.nodes:
        packet = getattr(node.target, "overloadpacket", None)
        if packet is None or _name(node) not in _IN_PLACE or not _alone(node.args[0]):
            continue
        node.target = getattr(torch.ops.aten, _IN_PLACE[_name(node)]).default


def _alone(node: torch.fx.Node) -> bool:
    """Whether a tensor is, from the product that made it on, read here alone."""
    while len(node.users) == 1:
        name = _name(node)
        if name in _FRESH:
            return True
        if name not in _SAME:
            return False
        node = node.args[0]  # type: ignore[assignment]
    return False


def _name(node: torch.fx.Node) -> str:
    packet: Any = getattr(node.target, "overloadpacket", None)
    return "" if packet is None else packet.__name__
