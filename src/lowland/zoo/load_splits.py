"""Loading splits by the name of a callable, as in a configuration."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from lowland.errors import ConfigError


def load_splits(data: Any) -> dict[str, Any]:
    """The splits that `package.module:callable`, or {name: ..., args: {...}}, returns; its name.

    >>> sorted(load_splits({"name": "lowland.zoo:digits", "args": {"train": 0.2}}))
    ['name', 'test', 'train', 'validation']
    """
    if isinstance(data, str):
        data = {"name": data}
    if not isinstance(data, Mapping):
        raise ConfigError(f"data: expected a name or splits, got {type(data).__name__}.")
    if "test" in data:
        return dict(data)
    module, _, attribute = str(data.get("name", "")).partition(":")
    if not module or not attribute or set(data) - {"name", "args"}:
        raise ConfigError(
            "data: expected package.module:callable, or {name: package.module:callable, args: "
            f"{{...}}}}, got {data!r}."
        )
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"data: {data['name']} cannot be imported ({error}); check the spelling."
        ) from error
    splits = function(**(data.get("args") or {}))
    if not isinstance(splits, Mapping) or "test" not in splits:
        raise ConfigError(f"data: expected {data['name']} to return a dict with test.")
    return {"name": attribute, **splits}
