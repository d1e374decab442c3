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
        self.support = len(members)
        self.size = self.point(0).weights.shape[-1]
        if isinstance(members, list | tuple):
            for i in range(len(members)):
                found = tuple(self.point(i).weights.shape)
                if found != (self.size,):
                    raise LayoutError(
                        f"ensemble: expected members ({self.size},), got {found} for member {i}: "
                        "they come from different models."
                    )

    def __len__(self) -> int:
        return len(self._members)

    def point(self, i: int, *, seed: int = 0) -> Point:
        member = self._members[i % len(self._members)]
        return member if isinstance(member, Point) else Point(member)
