"""A finite set of weight vectors with equal weights: deep, snapshot and FGE ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor

from lowland.core.layout import ParamLayout
from lowland.core.point import EstimatedPoint, Point, as_point
from lowland.errors import ConfigError, LayoutError
from lowland.files import PathLike
from lowland.posteriors.base import Posterior
from lowland.tensor_files import load_tree, restoring, save_tree

KIND = "ensemble"


class Stored(TypedDict):
    """An ensemble in a file: lists of a length, an entry a member."""

    layout: dict[str, Any] | None
    weights: list[Tensor]
    buffers: list[dict[str, Tensor] | None]
    estimated: list[bool]
    frozen: dict[str, list[float]]


class Ensemble(Posterior):
    """Members in turn: draw i is member i modulo n, so n draws are all members.

    Args:
        members: a sequence of (P,) tensors or `Point`s, or a tensor (n, P). A sequence that reads
            its members from disk, such as a `Trajectory`, is never held as a whole. layout: of
            their model, if known; `save` writes it too.

    Raises:
        ConfigError: no member. LayoutError: members of different sizes.

    >>> import torch
    >>> Ensemble([torch.zeros(1), torch.ones(1)]).sample(3)
    tensor([[0.],
            [1.],
            [0.]])
    """

    def __init__(
        self, members: Sequence[Tensor | Point] | Tensor, *, layout: ParamLayout | None = None
    ) -> None:
        if len(members) == 0:
            raise ConfigError("an ensemble needs at least one member.")
        self._members = members
        self.layout = layout
        self.support: int = len(members)
        self.size = len(self.point(0).weights)
        # what reads its members from disk checks them as it reads
        stored = members if isinstance(members, list | tuple) else ()
        for i, member in enumerate(stored):
            size = len(as_point(member, what=f"ensemble: member {i}").weights)
            if size != self.size:
                raise LayoutError(
                    f"ensemble: expected members ({self.size},), got ({size},) for member {i}: "
                    "they come from different models."
                )

    def __len__(self) -> int:
        return self.support

    def point(self, i: int, *, seed: int = 0) -> Point:
        i %= self.support
        return as_point(self._members[i], what=f"ensemble: member {i}")

    def save(self, path: PathLike) -> Path:
        """Writes the members with their buffers as one safetensors file, atomically; no pickle."""
        members = [self.point(i) for i in range(len(self))]
        tree = {
            "layout": None if self.layout is None else self.layout.spec(),
            "weights": [point.weights for point in members],
            "buffers": [point.buffers for point in members],
            "estimated": [point.estimated for point in members],
            "frozen": dict(self.frozen),
        }
        save_tree(path, tree, kind=KIND)
        return Path(path)

    @classmethod
    def load(cls, path: PathLike, *, layout: ParamLayout | None = None) -> Ensemble:
        """Reads what `save` wrote; the model is not needed.

        Raises:
            StoreError: a damaged or foreign file. LayoutError: of another model than `layout` is.
        """
        tree = load_tree(path, kind=KIND, form=Stored)
        own = None
        if tree["layout"] is not None:
            own = ParamLayout.from_spec(tree["layout"], source=path)
        if layout is not None and own is not None:
            layout.require_same(own, what=f"the members in {path}")
        with restoring(path, "Ensemble"):
            parts = zip(tree["weights"], tree["buffers"], tree["estimated"], strict=True)
            members = [(EstimatedPoint if estimated else Point)(w, b) for w, b, estimated in parts]
            ensemble = cls(members, layout=layout or own)
        ensemble.frozen = tree["frozen"]
        return ensemble
