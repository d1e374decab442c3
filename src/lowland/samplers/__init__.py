"""Samplers of a log density on R^k, one file each: many chains at once, to a `Chain`."""

from lowland.samplers.base import Job, MarkovChain, Sampler
from lowland.samplers.density import Density
from lowland.samplers.elliptical import EllipticalSlice
from lowland.samplers.quadrature import Grid
from lowland.samplers.slice import Slice

__all__ = ["Density", "EllipticalSlice", "Grid", "Job", "MarkovChain", "Sampler", "Slice"]
