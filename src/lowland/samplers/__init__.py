"""Samplers of a log density on R^k, one file each: many chains at once, to a `Chain`."""

from lowland.samplers.base import MarkovChain, Sampler
from lowland.samplers.density import Density
from lowland.samplers.elliptical import EllipticalSlice
from lowland.samplers.evidence import evidence
from lowland.samplers.flow import Flow
from lowland.samplers.hmc import NUTS
from lowland.samplers.infer import infer
from lowland.samplers.job import Job
from lowland.samplers.plane import posterior_plane
from lowland.samplers.quadrature import Grid
from lowland.samplers.registry import SAMPLERS
from lowland.samplers.sgld import SGLD
from lowland.samplers.slice import Slice
from lowland.samplers.subspace_density import log_density
from lowland.samplers.tune import tune_temperature
from lowland.samplers.variational import Variational

__all__ = [
    "NUTS",
    "SAMPLERS",
    "SGLD",
    "Density",
    "EllipticalSlice",
    "Flow",
    "Grid",
    "Job",
    "MarkovChain",
    "Sampler",
    "Slice",
    "Variational",
    "evidence",
    "infer",
    "log_density",
    "posterior_plane",
    "tune_temperature",
]
