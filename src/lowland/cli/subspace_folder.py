"""The folder of `lowland subspace`: a posterior in a subspace of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lowland.cli.stage_folder import StageFolder
from lowland.core import Point
from lowland.geometry import Curve, Subspace

_AXES = ("center", "z1", "z2")


class SubspaceFolder(StageFolder):
    """A subspace about weights of a run, and the chains in it."""

    command, content, key = "subspace", "posteriors in subspaces", "around"

    @classmethod
    def within(cls, run: Path) -> list[Path]:
        # a folder for each kind and sampler
        return sorted(path for path in (run / cls.command).glob("*") if cls.is_at(path))

    def subspace(self) -> Subspace:
        """The subspace on disk."""
        return Subspace.load(self.shape("subspace"))

    # -- for `lowland scan` ----------------------------------------------------------------------

    def default_plane(self) -> list[str]:
        return list(_AXES)

    @classmethod
    def has_name(cls, name: str) -> bool:
        return name in _AXES

    def points(self) -> dict[str, Point]:
        """The centre, and a unit along the first two directions."""
        sub = self.subspace()
        tips = {f"z{i + 1}": sub.point(row) for i, row in enumerate(torch.eye(sub.k)[:2])}
        return {"center": sub.point(torch.zeros(sub.k))} | tips

    def overlays(self, names: Sequence[str]) -> dict[str, Curve]:
        return {}
