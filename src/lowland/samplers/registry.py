"""Samplers by name: a line each."""

from __future__ import annotations

from lowland.errors import ConfigError
from lowland.samplers.base import Sampler
from lowland.samplers.elliptical import EllipticalSlice
from lowland.samplers.flow import Flow
from lowland.samplers.hmc import NUTS
from lowland.samplers.quadrature import Grid
from lowland.samplers.sgld import SGLD
from lowland.samplers.slice import Slice
from lowland.samplers.variational import Variational

SAMPLERS: dict[str, type[Sampler]] = {
    made.name: made for made in (EllipticalSlice, Slice, NUTS, SGLD, Variational, Flow, Grid)
}


def sampler_of(named: str | Sampler) -> Sampler:
    """A sampler by its name, with its usual options, or as it is."""
    if isinstance(named, Sampler):
        return named
    if named not in SAMPLERS:
        raise ConfigError(f"sampler: expected one of {', '.join(SAMPLERS)}, got {named!r}.")
    return SAMPLERS[named]()
