"""Samplers of a log density on R^k, one file each: many chains at once, to a `Chain`."""

from lowland.samplers.base import Job, MarkovChain, Sampler
from lowland.samplers.density import Density
from lowland.samplers.hmc import NUTS
from lowland.samplers.sgld import SGLD

__all__ = ["NUTS", "SGLD", "Density", "Job", "MarkovChain", "Sampler"]
