"""The methods of `lowland run`, in the order of its table: one file each, and one line here."""

from __future__ import annotations

import difflib
import importlib

from lowland.errors import ConfigError
from lowland.runs.methods.base import Method, Part
from lowland.runs.methods.csgld import CSGLD
from lowland.runs.methods.dropout import MCDropout
from lowland.runs.methods.ema import EMA
from lowland.runs.methods.ensemble import DeepEnsemble
from lowland.runs.methods.espro import ESPRO
from lowland.runs.methods.fge import FGE
from lowland.runs.methods.laplace import Laplace
from lowland.runs.methods.multiswag import MultiSWAG
from lowland.runs.methods.pretrained import Pretrained
from lowland.runs.methods.sgd import SGD
from lowland.runs.methods.snapshot import Snapshot
from lowland.runs.methods.subspace import SubspaceInference
from lowland.runs.methods.swa import SWA
from lowland.runs.methods.swag import SWAG, DiagonalSWAG
from lowland.runs.methods.temperature import TemperatureScaling

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Pretrained,
        SGD,
        TemperatureScaling,
        MCDropout,
        Laplace,
        EMA,
        SWA,
        DiagonalSWAG,
        SWAG,
        FGE,
        Snapshot,
        CSGLD,
        DeepEnsemble,
        MultiSWAG,
        ESPRO,
        SubspaceInference,
    )
}


def method_named(name: str) -> Method:
    """A method by its name in a configuration, or `package.module:Class` of a method elsewhere.

    Raises:
        ConfigError: there is no such method, or no such class.
    """
    if ":" in name:
        return _elsewhere(name)
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {near[0]}" if near else ""
        raise ConfigError(
            f"methods: expected some of {', '.join(METHODS)}, or package.module:Class, got "
            f"{name!r}{hint}."
        )
    return METHODS[name]()


def _elsewhere(name: str) -> Method:
    module, _, attribute = name.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ConfigError(
            f"methods: {name} cannot be imported ({type(error).__name__}: {error}); check the "
            "spelling, and have its module beside the configuration."
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise ConfigError(f"methods: {name}: expected a subclass of lowland.runs.methods.Method.")
    return cls()


__all__ = ["METHODS", "Method", "Part", "method_named"]
