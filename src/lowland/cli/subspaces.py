"""The folder of posteriors in subspaces of finished runs, and how they are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lowland.cli.stage import Stage, names_in
from lowland.core import Point
from lowland.errors import ConfigError
from lowland.geometry import Curve, Subspace
from lowland.runs.folder import RunFolder

_AXES = ("center", "z1", "z2")


class Subspaces(Stage):
    """A subspace about weights of a run, and the chains in it."""

    command, makes, key = "subspace", "posteriors in subspaces", "around"

    @classmethod
    def within(cls, run: Path) -> list[Path]:
        # a folder for each kind and sampler
        return sorted(path for path in (run / cls.command).glob("*") if cls.is_at(path))

    def subspace(self) -> Subspace:
        """The subspace that is there."""
        return Subspace.load(self.shape("subspace"))

    # -- for `lowland scan` ----------------------------------------------------------------------

    def plane(self) -> list[str]:
        return list(_AXES)

    @classmethod
    def owns(cls, word: str) -> bool:
        return word in _AXES

    def named(self) -> dict[str, Point]:
        """The centre, and a unit along the first two directions."""
        sub = self.subspace()
        tips = {f"z{i + 1}": sub.point(row) for i, row in enumerate(torch.eye(sub.k)[:2])}
        return {"center": sub.point(torch.zeros(sub.k))} | tips

    def drawn(self, words: Sequence[str]) -> dict[str, Curve]:
        return {}


def middle(folder: RunFolder, kind: str, around: str | None) -> list[str]:
    """The name of the weights that a subspace lies about; none where others say where it lies."""
    if kind in ("pca", "curve"):
        if around is not None:
            where = "the iterates' mean" if kind == "pca" else "the middle of the curve's ends"
            raise ConfigError(
                f"--around: --kind {kind} lies about {where}; leave it out, or take --kind random "
                "or hessian."
            )
        return []
    if around is None:
        around = "average-0" if "average-0" in names_in(folder) else "sgd-0"
    return [around]
