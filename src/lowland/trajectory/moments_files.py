"""The state of moments in a file: its form, and the order of its weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lowland.core.layout import ParamLayout
from lowland.errors import LayoutError, StoreError
from lowland.files import PathLike
from lowland.schema import require


def require_state(
    state: dict[str, Any], names: Iterable[str], layout: ParamLayout, path: PathLike
) -> None:
    """Raises `StoreError` unless a file holds what its layout says, before as much is allocated."""
    require(state["count"], int, source=f"{path}: count")
    if state["count"] < 0:
        raise StoreError(f"{path}: count: expected 0 or more, got {state['count']}.")
    require(state.get("_buffers", {}), dict[str, Tensor], source=f"{path}: buffers")
    require(state.get("_statistics"), dict[str, Tensor] | None, source=f"{path}: statistics")
    require(state.get("_frozen", {}), dict[str, list[float]], source=f"{path}: frozen")
    for name in names:
        require(state[name], Tensor, source=f"{path}: {name}")
        if state[name].shape[-1:] != (layout.size,):
            raise StoreError(
                f"{path}: {name}: expected (..., {layout.size}), got {tuple(state[name].shape)}; "
                "name another file."
            )


def arranged(
    state: dict[str, Any], theirs: ParamLayout, ours: ParamLayout, path: PathLike
) -> dict[str, Any]:
    """A state with its vectors in the order of another layout.

    Raises:
        LayoutError: one of another model.
    """
    shapes = {entry.name: entry.shape for entry in theirs.entries}
    places: dict[str, str] = {}  # ours -> theirs: a file may have another of a tied weight's names
    for other, name in [*((n, n) for n in ours.names), *ours.aliases.items()]:
        place = theirs.aliases.get(other, other)
        if place in shapes:
            places.setdefault(name, place)
    wrong = [e.name for e in ours.entries if shapes.get(places.get(e.name, "")) != e.shape]
    if wrong:
        raise LayoutError(
            f"{path} is of another model: {wrong[0]} is missing in it or has another shape; it "
            f"holds {', '.join(theirs.names[:5])}."
        )

    def rearrange(vectors: Tensor) -> Tensor:  # (..., P)
        by_name = theirs.unflatten(vectors)
        pieces = [by_name[places[name]] for name in ours.names]
        return torch.cat([p.flatten(vectors.ndim - 1) for p in pieces], dim=-1)

    tensors = {k: rearrange(v) for k, v in state.items() if isinstance(v, Tensor)}  # not buffers
    return state | tensors | {"layout": ours.spec()}
