"""Shapes in weight space: linear in a few anchors, one file each."""

from lowland.geometry.affine import Affine
from lowland.geometry.barycentric import Barycentric
from lowland.geometry.base import Shape
from lowland.geometry.bezier import Bezier
from lowland.geometry.complex import SimplicialComplex
from lowland.geometry.curve import Curve
from lowland.geometry.line import Line
from lowland.geometry.plane import Plane
from lowland.geometry.polychain import PolyChain
from lowland.geometry.simplex import Simplex
from lowland.geometry.subspace import Subspace

__all__ = [
    "Affine",
    "Barycentric",
    "Bezier",
    "Curve",
    "Line",
    "Plane",
    "PolyChain",
    "Shape",
    "Simplex",
    "SimplicialComplex",
    "Subspace",
]
