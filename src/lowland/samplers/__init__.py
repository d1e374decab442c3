"""Samplers of a log density on R^k, one file each: many chains at once, to a `Chain`."""

from lowland.samplers.base import Job, MarkovChain, Sampler
from lowland.samplers.density import Density
from lowland.samplers.flow import Flow
from lowland.samplers.variational import Variational

__all__ = ["Density", "Flow", "Job", "MarkovChain", "Sampler", "Variational"]
