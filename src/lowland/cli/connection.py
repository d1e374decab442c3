"""The folder of curves that join networks of finished runs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lowland.cli.stage import Stage
from lowland.core import Point
from lowland.geometry import Curve, Line
from lowland.runs.curves import KINDS, TITLES

_WORD = re.compile(r"w0|w1|(\w+\.)?bend\d*")


class Connection(Stage):
    """Two networks, and the curves between them."""

    command, makes, key = "connect", "curves", "ends"

    def ends(self) -> tuple[Point, Point]:
        """The two networks."""
        first, last = self.weights()
        return first, last

    def curves(self) -> dict[str, Curve]:
        """The curves that are done, the line first."""
        found: dict[str, Curve] = {"line": Line(*self.ends())}
        for kind, cls in KINDS.items():
            if self.shape(kind).is_file():
                found[kind] = cls.load(self.shape(kind))
        return found

    # -- for `lowland scan` ----------------------------------------------------------------------

    def plane(self) -> list[str]:
        return ["w0", "w1", "bend"]

    @classmethod
    def owns(cls, word: str) -> bool:
        return _WORD.fullmatch(word) is not None

    def named(self) -> dict[str, Point]:
        """The ends w0 and w1; of the first curve bend, which is bend1 too, bend2, ...; of each
        curve the same behind its kind and a dot."""
        fitted = self._fitted()
        named: dict[str, Point] = dict(zip(("w0", "w1"), self.ends(), strict=True))
        for curve in list(fitted.values())[:1]:
            named |= _bends(curve)
        for kind, curve in fitted.items():
            named |= {f"{kind}.{bend}": w for bend, w in _bends(curve).items()}
        return named

    def drawn(self, words: Sequence[str]) -> dict[str, Curve]:
        """The curves whose bends are named, or the first; the line where both ends are."""
        fitted = self._fitted()
        kinds = [kind for kind in fitted if any(word.startswith(f"{kind}.") for word in words)]
        curves = {TITLES[kind]: fitted[kind] for kind in kinds or list(fitted)[:1]}
        if {"w0", "w1"} <= set(words):
            curves["line"] = Line(*self.ends())
        return curves

    def _fitted(self) -> dict[str, Curve]:
        return {kind: curve for kind, curve in self.curves().items() if kind != "line"}


def _bends(curve: Curve) -> dict[str, Point]:
    """Its free anchors by name."""
    free = [curve.anchor(i) for i in range(1, len(curve.anchors) - 1)]
    return {"bend": free[0]} | {f"bend{i}": w for i, w in enumerate(free, 1)}
