"""Samplers by name."""

from __future__ import annotations

from lowland import checks
from lowland.samplers.base import Sampler
from lowland.samplers.elliptical import EllipticalSlice
from lowland.samplers.flow import Flow
from lowland.samplers.hmc import NUTS
from lowland.samplers.quadrature import Grid
from lowland.samplers.sgld import SGLD
from lowland.samplers.slice import Slice
from lowland.samplers.variational import Variational

SAMPLERS: dict[str, type[Sampler]] = {
    kind.name: kind for kind in (EllipticalSlice, Slice, NUTS, SGLD, Variational, Flow, Grid)
}


def sampler_of(sampler: str | Sampler) -> Sampler:
    """A sampler by name, with its default options; a `Sampler` is returned as it is."""
    if isinstance(sampler, Sampler):
        return sampler
    checks.choice("sampler", sampler, SAMPLERS)
    return SAMPLERS[sampler]()
