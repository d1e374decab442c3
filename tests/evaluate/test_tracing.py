"""Traced graphs: the values of the function itself, and nothing overwritten that is read again."""

import torch
from torch import nn

from lowland.evaluate.tracing import trace_function


def test_operations_on_data_alone_are_computed_once():
    x = torch.randn(5, 3)
    function = trace_function(lambda w: (x @ x.mT).sum(0) * w, torch.randn(5))
    assert isinstance(function, torch.fx.GraphModule)
    names = [str(node.target) for node in function.graph.nodes]
    assert not any("mm" in name for name in names)
    w = torch.randn(5)
    torch.testing.assert_close(function(w), (x @ x.mT).sum(0) * w)


def test_vmap_is_traced_through():
    x = torch.randn(7, 3)
    layer = torch.func.vmap(lambda w: torch.tanh(x @ w).sum(0))
    example = torch.randn(4, 3, 2)
    function = trace_function(layer, example)
    assert isinstance(function, torch.fx.GraphModule)
    weights = torch.randn(4, 3, 2)
    torch.testing.assert_close(function(weights), torch.tanh(x @ weights).sum(1))


class ReadsTwice(nn.Module):
    """The input of the activation is read again."""

    def forward(self, x, w):
        h = x @ w
        return torch.relu(h) + h + torch.tanh(torch.relu(h) @ w)


def test_a_tensor_that_is_read_again_is_not_overwritten():
    x = torch.randn(3, 3)
    net = ReadsTwice()
    function = trace_function(lambda w: net(x, w), torch.randn(3, 3))
    assert isinstance(function, torch.fx.GraphModule)
    names = [
        node.target.overloadpacket.__name__
        for node in function.graph.nodes
        if node.op == "call_function"
    ]
    assert "tanh_" in names
    assert "relu_" not in names
    w = torch.randn(3, 3)
    torch.testing.assert_close(function(w), net(x, w))


def test_every_call_draws_new_random_numbers():
    data = torch.ones(64)
    function = trace_function(
        lambda w: w.sum() * 0 + torch.bernoulli(data / 2).sum() * 0 + w, torch.ones(3)
    )
    assert isinstance(function, torch.fx.GraphModule)
    names = [str(node.target) for node in function.graph.nodes]
    assert any("bernoulli" in name for name in names)


def test_functions_with_branches_are_returned_unchanged():
    def decides(x):
        return x * 2 if float(x.sum()) > 0 else x

    assert trace_function(decides, torch.ones(2)) is decides or torch.equal(
        trace_function(decides, torch.ones(2))(torch.ones(2)), 2 * torch.ones(2)
    )
