"""The folder of `lowland simplex`: simplexes around networks, or the complex that joins them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

from lowland.cli.stage_folder import StageFolder
from lowland.core import Point
from lowland.geometry import Barycentric, Curve, PolyChain

COMPLEX = "complex"
_NAME = re.compile(r"(?:s(\d+)\.)?v(\d+)")


class SimplexFolder(StageFolder):
    """Networks, and a simplex around each, or one complex of all of them."""

    command, content, key = "simplex", "simplexes", "modes"

    def shapes(self) -> dict[str, Barycentric]:
        """The simplexes on disk by the names of their files."""
        names = [*(f"simplex-{i}" for i in range(len(self.names))), COMPLEX]
        paths = {name: self.shape(name) for name in names if self.shape(name).is_file()}
        return {name: Barycentric.load(path) for name, path in paths.items()}

    # -- for `lowland scan` ----------------------------------------------------------------------

    def default_plane(self) -> list[str]:
        return ["v0", "v1", "v2"]

    @classmethod
    def has_name(cls, name: str) -> bool:
        return _NAME.fullmatch(name) is not None

    def points(self) -> dict[str, Point]:
        """Vertices of the first simplex, or of the complex (its networks first): v0, v1, ...; of
        each simplex s0.v0, s0.v1, ..."""
        points: dict[str, Point] = {}
        for number, shape in self._by_number().items():
            vertices = {f"v{i}": shape.anchor(i) for i in range(len(shape.anchors))}
            points |= vertices if number == 0 else {}
            points |= {f"s{number}.{name}": vertex for name, vertex in vertices.items()}
        return points

    def overlays(self, names: Sequence[str]) -> dict[str, Curve]:
        """The edges between these vertices, as one line."""
        matches = [match for match in map(_NAME.fullmatch, names) if match]
        if len(matches) != 3 or len({match[1] or "0" for match in matches}) > 1:
            return {}
        shape = self._by_number()[int(matches[0][1] or 0)]
        order = _edge_path([int(match[2]) for match in matches], shape.cells)
        if not order:
            return {}
        vertices = shape.anchors[order]
        chain = PolyChain.between(vertices[0], vertices[1], bends=len(order) - 2)
        return {"simplex": chain.with_anchors(vertices)}

    def _by_number(self) -> dict[int, Barycentric]:
        """The simplexes by the numbers of their networks; a complex is number 0."""
        return {
            0 if name == COMPLEX else int(name.rpartition("-")[2]): shape
            for name, shape in self.shapes().items()
        }


def _edge_path(vertices: list[int], cells: Sequence[Sequence[int]]) -> list[int]:
    """Three vertices in the order of a path along edges: closed where there are three edges.

    >>> _edge_path([0, 1, 2], [[0, 1, 2]]), _edge_path([0, 1, 2], [[0, 2], [1, 2]])
    ([0, 1, 2, 0], [0, 2, 1])
    """
    edges = [
        pair for pair in combinations(vertices, 2) if any(set(pair) <= set(cell) for cell in cells)
    ]
    if len(edges) == 3:
        return [*vertices, vertices[0]]
    if len(edges) == 2:
        (middle,) = set(edges[0]) & set(edges[1])
        first, last = (next(v for v in edge if v != middle) for edge in edges)
        return [first, middle, last]
    return []
