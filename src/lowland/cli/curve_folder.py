"""The folder of `lowland connect`: curves that join two networks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lowland.cli.stage_folder import StageFolder
from lowland.core import Point
from lowland.geometry import Curve, Line
from lowland.runs.curves import KINDS, TITLES

_NAME = re.compile(r"w0|w1|(\w+\.)?bend\d*")


class CurveFolder(StageFolder):
    """Two networks, and the curves between them."""

    command, content, key = "connect", "curves", "ends"

    def ends(self) -> tuple[Point, Point]:
        """The two networks."""
        first, last = self.weights
        return first, last

    def curves(self) -> dict[str, Curve]:
        """The curves on disk by kind, the line first."""
        curves: dict[str, Curve] = {"line": Line(*self.ends())}
        for kind, cls in KINDS.items():
            if self.shape(kind).is_file():
                curves[kind] = cls.load(self.shape(kind))
        return curves

    # -- for `lowland scan` ----------------------------------------------------------------------

    def default_plane(self) -> list[str]:
        return ["w0", "w1", "bend"]

    @classmethod
    def has_name(cls, name: str) -> bool:
        return _NAME.fullmatch(name) is not None

    def points(self) -> dict[str, Point]:
        """The ends w0 and w1; control points of the first curve bend (also bend1), bend2, ...; of
        each curve the same after its kind and a dot."""
        fitted = self._fitted()
        points: dict[str, Point] = dict(zip(("w0", "w1"), self.ends(), strict=True))
        for curve in list(fitted.values())[:1]:
            points |= _control_points(curve)
        for kind, curve in fitted.items():
            points |= {f"{kind}.{bend}": w for bend, w in _control_points(curve).items()}
        return points

    def overlays(self, names: Sequence[str]) -> dict[str, Curve]:
        """The curves whose control points are named, or the first; the line where both ends are."""
        fitted = self._fitted()
        kinds = [kind for kind in fitted if any(name.startswith(f"{kind}.") for name in names)]
        curves = {TITLES[kind]: fitted[kind] for kind in kinds or list(fitted)[:1]}
        if {"w0", "w1"} <= set(names):
            curves["line"] = Line(*self.ends())
        return curves

    def _fitted(self) -> dict[str, Curve]:
        return {kind: curve for kind, curve in self.curves().items() if kind != "line"}


def _control_points(curve: Curve) -> dict[str, Point]:
    free = [curve.anchor(i) for i in range(1, len(curve.anchors) - 1)]
    return {"bend": free[0]} | {f"bend{i}": w for i, w in enumerate(free, 1)}
