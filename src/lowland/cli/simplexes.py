"""The folder of simplexes around networks of finished runs, or of the volume that joins them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

from lowland.cli.stage import Stage
from lowland.core import Point
from lowland.geometry import Barycentric, Curve, PolyChain

COMPLEX = "complex"
_WORD = re.compile(r"(s\d+\.)?v\d+")


class Simplexes(Stage):
    """Networks, and a simplex around each, or one complex of all of them."""

    command, makes, key = "simplex", "simplexes", "modes"

    def shapes(self) -> dict[str, Barycentric]:
        """The simplexes that are done, by the names of their files."""
        names = [*(f"simplex-{i}" for i in range(len(self.names))), COMPLEX]
        found = {name: self.shape(name) for name in names if self.shape(name).is_file()}
        return {name: Barycentric.load(path) for name, path in found.items()}

    # -- for `lowland scan` ----------------------------------------------------------------------

    def plane(self) -> list[str]:
        return ["v0", "v1", "v2"]

    @classmethod
    def owns(cls, word: str) -> bool:
        return _WORD.fullmatch(word) is not None

    def named(self) -> dict[str, Point]:
        """Vertices of the first simplex, or of the complex (its networks first): v0, v1, ...; of
        each simplex s0.v0, s0.v1, ..."""
        named: dict[str, Point] = {}
        for number, shape in self._numbered().items():
            vertices = {f"v{i}": shape.anchor(i) for i in range(len(shape.anchors))}
            named |= vertices if number == 0 else {}
            named |= {f"s{number}.{name}": vertex for name, vertex in vertices.items()}
        return named

    def _numbered(self) -> dict[int, Barycentric]:
        """The simplexes by the numbers of their networks; a complex is number 0."""
        return {
            0 if name == COMPLEX else int(name.rpartition("-")[2]): shape
            for name, shape in self.shapes().items()
        }

    def drawn(self, words: Sequence[str]) -> dict[str, Curve]:
        """The edges between these vertices, as one line."""
        places = [place for place in map(_place, words) if place]
        if len(places) != 3 or len({number for number, _ in places}) > 1:
            return {}
        shape = self._numbered()[places[0][0]]
        numbers = [vertex for _, vertex in places]
        edges = [
            pair
            for pair in combinations(numbers, 2)
            if any(set(pair) <= set(cell) for cell in shape.cells)
        ]
        if len(edges) == 3:
            way = [*numbers, numbers[0]]
        elif len(edges) == 2:
            (middle,) = set(edges[0]) & set(edges[1])
            way = [next(n for n in edge if n != middle) for edge in edges]
            way.insert(1, middle)
        else:
            return {}
        vertices = shape.anchors[way]
        chain = PolyChain.between(vertices[0], vertices[1], bends=len(way) - 2)
        return {"simplex": chain.with_anchors(vertices)}


def _place(word: str) -> tuple[int, int] | None:
    """The numbers of a simplex and of its vertex."""
    if not Simplexes.owns(word):
        return None
    first, _, last = word.rpartition(".")
    return int(first[1:] or 0) if first else 0, int(last[1:])
