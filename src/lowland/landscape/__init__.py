"""The surface seen: along curves, between minima, and how alike weights are."""

from lowland.landscape.barrier import barrier
from lowland.landscape.path import path
from lowland.landscape.similarity import similarity

__all__ = ["barrier", "path", "similarity"]
