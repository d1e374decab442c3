r"""Products of the curvature of one batch with vectors: \(J^T M J v\) and \(\nabla^2 L\, v\).

Each kind has two ways. "double_backward" is reverse mode twice: more operators have it, and several
vectors share one graph. "forward" is forward mode over reverse mode (Pearlmutter 1994), whose
tangents go along with the values, a pass for each vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor

METHODS = ("double_backward", "forward")


class BatchLoss(NamedTuple):
    """The loss of a batch as a function of the weights, in two steps.

    Attributes:
        outputs: (P,) -> the outputs of the model, or for the Fisher matrix the losses of its items.
        loss: outputs -> their loss, a sum over items. None: half the sum of their squares, whose
            Hessian is the identity.
    """

    outputs: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor], Tensor] | None


def hessian(batch: BatchLoss, w: Tensor, vectors: Tensor, method: str) -> Tensor:
    """(k, P) for vectors (k, P): the Hessian of the batch's loss.

    >>> batch = BatchLoss(outputs=lambda w: w**3, loss=lambda f: f.sum())
    >>> hessian(batch, torch.tensor([1.0, 2.0]), torch.eye(2), "forward")
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    assert batch.loss is not None
    if method == "double_backward":
        leaf = w.detach().clone().requires_grad_()
        gradient = _grad(batch.loss(batch.outputs(leaf)), leaf, graph=True)
        return torch.stack([_grad(gradient, leaf, v) for v in vectors])
    rows = []
    for v in vectors:
        with fwAD.dual_level():
            leaf = fwAD.make_dual(w.detach().clone().requires_grad_(), v)
            tangent = fwAD.unpack_dual(_grad(batch.loss(batch.outputs(leaf)), leaf)).tangent
        rows.append(torch.zeros_like(w) if tangent is None else tangent.detach())
    return torch.stack(rows)


def gauss_newton(batch: BatchLoss, w: Tensor, vectors: Tensor, method: str) -> Tensor:
    r"""(k, P) for vectors (k, P): \(J^T M J\), J of the outputs, M the Hessian of their loss.

    >>> batch = BatchLoss(outputs=lambda w: w**3, loss=None)
    >>> gauss_newton(batch, torch.tensor([1.0, 2.0]), torch.eye(2), "forward")
    tensor([[  9.,   0.],
            [  0., 144.]])
    """
    if method == "double_backward":
        leaf = w.detach().clone().requires_grad_()
        output = batch.outputs(leaf)
        # J v by reverse mode twice: u -> J^T u is linear, and its transpose is J
        u = torch.zeros_like(output).requires_grad_()
        back = _grad(output, leaf, u, graph=True)
        times = _output_hessian(batch.loss, output)
        return torch.stack([_grad(output, leaf, times(_grad(back, u, v))) for v in vectors])
    rows = []
    for v in vectors:
        with fwAD.dual_level():
            leaf = fwAD.make_dual(w.detach().clone().requires_grad_(), v)
            output, tangent = fwAD.unpack_dual(batch.outputs(leaf))
        if tangent is None:
            rows.append(torch.zeros_like(w))
            continue
        times = _output_hessian(batch.loss, output)
        rows.append(_grad(output, leaf, times(tangent.detach())).detach())
    return torch.stack(rows)


def _output_hessian(
    loss: Callable[[Tensor], Tensor] | None, output: Tensor
) -> Callable[[Tensor], Tensor]:
    """v -> M v, both in the form of the outputs."""
    if loss is None:
        return lambda v: v
    alone = output.detach().requires_grad_()
    gradient = _grad(loss(alone), alone, graph=True)
    return lambda v: _grad(gradient, alone, v)


def _grad(
    value: Tensor, by: Tensor, weights: Tensor | None = None, *, graph: bool = False
) -> Tensor:
    """The gradient; zero where the value does not depend on `by`, or no longer does."""
    if not value.requires_grad:
        return torch.zeros_like(by)
    (product,) = torch.autograd.grad(
        value, by, weights, create_graph=graph, retain_graph=True, materialize_grads=True
    )
    return product
