"""What of a model is no part of the weights: its buffers and its frozen parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lowland.core.buffers import Buffers
from lowland.core.layout import ParamLayout
from lowland.core.template import Template
from lowland.errors import LayoutError


class FixedState(dict[str, Tensor]):
    """The buffers and frozen parameters of a model by name, on its device.

    Args:
        layout: which parameters are frozen. template: the model.

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    >>> state = FixedState(ParamLayout(net, where="1"), Template(net))
    >>> sorted(state)
    ['0.weight', '1.num_batches_tracked', '1.running_mean', '1.running_var']
    >>> state.matching({"1.running_mean": torch.ones(1), "n_averaged": torch.ones(1)})
    {'1.running_mean': tensor([1.])}
    """

    def __init__(self, layout: ParamLayout, template: Template) -> None:
        super().__init__(layout.state_of(template.module) | template.buffers)
        self.layout = layout
        self.buffers = template.buffers

    def matching(self, buffers: Mapping[str, Tensor]) -> Buffers:
        """Those that are the model's, on its device, in its dtypes.

        Raises:
            LayoutError: none is, although the model has buffers.
        """
        # checkpoints hold other tensors too: counters of wrappers, parameters that are part of w
        own = {
            name: b.to(self[name].device, self[name].dtype)
            for name, b in buffers.items()
            if name in self
        }
        if self.buffers and buffers and not own:
            raise LayoutError(
                f"the buffers come from another model: expected {next(iter(self.buffers))}, got "
                f"{next(iter(buffers))}."
            )
        return own

    def changed_frozen_parameters(self, model: nn.Module) -> Buffers:
        """Copies of the frozen parameters in which a model differs from this one, by name: they
        travel with its buffers."""
        theirs = self.layout.state_of(model)
        return {
            name: theirs[name].clone()
            for name, ours in self.items()
            if name not in self.buffers and not torch.equal(theirs[name].to(ours), ours)
        }
