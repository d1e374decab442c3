"""Samplers of a log density on R^k, one file each: many chains at once, to a `Chain`."""

from lowland.samplers.base import Job, MarkovChain, Sampler
from lowland.samplers.density import Density

__all__ = ["Density", "Job", "MarkovChain", "Sampler"]
