"""SWA: the mean of SGD iterates."""

from __future__ import annotations

from lowland.trajectory.moments import Moments


class SWA(Moments):
    """Stochastic weight averaging (Izmailov et al. 2018): the mean of iterates, each with equal
    weight.

    Update it about once per epoch, late in training, while the learning rate is still high.

    Args:
        layout: of the model whose iterates are averaged. device: where the average lives; None: the
            CPU.

    >>> import torch
    >>> from lowland.core import ParamLayout
    >>> from torch import nn
    >>> layout = ParamLayout(nn.Linear(1, 1, bias=False))
    >>> swa = SWA(layout)
    >>> for value in (1.0, 2.0, 3.0, 6.0):
    ...     swa.update(torch.tensor([value]))
    >>> swa.mean
    tensor([3.])
    """
