"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from lowland import checks

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class MLP(nn.Sequential):
    """Linear layers with an activation between them; inputs of any shape are flattened.

    Args:
        inputs, outputs: sizes of both ends.
        widths: units of the hidden layers; none: a linear model.
        activation: "relu", "tanh", "gelu" or "silu".

    >>> net = MLP(inputs=2, outputs=1, widths=(200, 50, 50, 50))
    >>> sum(p.numel() for p in net.parameters())  # the 1-D regression of Izmailov et al. 2019
    15801
    """

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        widths: Sequence[int] = (50,),
        activation: str = "relu",
    ) -> None:
        checks.choice("activation", activation, _ACTIVATIONS)
        sizes = [inputs, *widths]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), _ACTIVATIONS[activation]()]
        super().__init__(*layers, nn.Linear(sizes[-1], outputs))
