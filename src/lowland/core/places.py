"""Where the parameters and buffers of a module are stored, by name."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lowland.core.names import clean_names


def slots(model: nn.Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Each place as the dict of its module that holds it, and the key there."""
    return {
        f"{prefix}.{key}" if prefix else key: (tensors, key)
        for prefix, module in model.named_modules()
        for tensors in (module._parameters, module._buffers)
        for key in tensors
    }


def computed_tensors(model: nn.Module) -> list[tuple[dict[str, Any], str, Tensor]]:
    """Tensors that hooks left as plain attributes of a module, such as weight norm's weight."""
    return [
        (vars(module), key, value)
        for module in model.modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor)
    ]


def places_of(model: nn.Module) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Where a parameter or buffer of any name stands: every place that is tied to it, once each.

    Names count with and without wrappers' prefixes. Beside them the buffers that are None until a
    forward pass fills them: they are None again at every call, so that calls are pure.
    """
    places: dict[str, tuple[str, ...]] = {}
    unfilled = []
    for kind, every in (
        ("_parameters", dict(model.named_parameters(remove_duplicate=False))),
        ("_buffers", dict(model.named_buffers(remove_duplicate=False))),
    ):
        tied: dict[int, list[str]] = {}
        for prefix, module in model.named_modules():
            for key, tensor in getattr(module, kind).items():
                name = f"{prefix}.{key}" if prefix else key
                if tensor is not None:
                    tied.setdefault(id(tensor), []).append(name)
                elif kind == "_buffers":
                    unfilled.append(name)
        short = clean_names([*every, *unfilled])
        for name, tensor in every.items():
            places[name] = places[short[name]] = tuple(tied[id(tensor)])
        for name in unfilled:
            places[name] = places[short[name]] = (name,)
    return places, unfilled
