"""Samplers of a log density on R^k, one file each: many chains at once, to a `Chain`."""

from lowland.samplers.base import Job, MarkovChain, Sampler
from lowland.samplers.density import Density
from lowland.samplers.elliptical import EllipticalSlice
from lowland.samplers.hmc import NUTS
from lowland.samplers.quadrature import Grid
from lowland.samplers.sgld import SGLD
from lowland.samplers.slice import Slice
from lowland.samplers.variational import Variational

__all__ = [
    "NUTS",
    "SGLD",
    "Density",
    "EllipticalSlice",
    "Grid",
    "Job",
    "MarkovChain",
    "Sampler",
    "Slice",
    "Variational",
]
