"""A finite set of weight vectors with equal weights: deep, snapshot and FGE ensembles."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lowland.core.point import Point
from lowland.errors import ConfigError, LayoutError
from lowland.posteriors.base import Posterior


class Ensemble(Posterior):
    """Members taken in turn: draw i is member i modulo n, so that n draws are all of them.

    Args:
        members: a sequence of (P,) tensors or `Point`s, or a tensor (n, P). Any sequence will do:
            one that reads its members from disk, as a `Trajectory` does, is never held as a whole.

    Raises:
        ConfigError: no member. LayoutError: members of different sizes.

    >>> import torch
    >>> Ensemble([torch.zeros(1), torch.ones(1)]).sample(3)
    tensor([[0.],
            [1.],
            [0.]])
    """

    def __init__(self, members: Sequence[Tensor | Point] | Tensor) -> None:
        if len(members) == 0:
            raise ConfigError("an ensemble needs at least one member.")
        self._members = members
        self.support: int = len(members)
        first = self.point(0).weights
        self.size = first.shape[-1] if first.ndim else 1
        # what reads its members from disk checks them as it reads
        held = members if isinstance(members, list | tuple) else (first,)
        for i, member in enumerate(held):
            found = tuple((member.weights if isinstance(member, Point) else member).shape)
            if found != (self.size,):
                raise LayoutError(
                    f"ensemble: expected members ({self.size},), got {found} for member {i}: "
                    "they come from different models, or are not flat."
                )

    def __len__(self) -> int:
        return self.support

    def point(self, i: int, *, seed: int = 0) -> Point:
        member = self._members[i % self.support]
        return member if isinstance(member, Point) else Point(member)
