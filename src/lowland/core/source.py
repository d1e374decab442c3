"""The model that a surface was made of, whose buffers may change afterwards."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowland.core.names import join_names, named_buffers
from lowland.warn import warn


class SourceModel:
    """A model, held weakly, that a private copy was made of.

    Args:
        derived: names of buffers that follow from the weights or are estimated for them.
    """

    def __init__(self, model: nn.Module, *, derived: Collection[str]) -> None:
        self._model: Callable[[], nn.Module | None] = weakref.ref(model)
        self._derived = frozenset(derived)
        self._versions: dict[str, tuple[int, int]] = {}  # of tensors that are known to be equal

    def warn_if_changed(self, buffers: Mapping[str, Tensor]) -> None:
        """Warns where a flat vector takes these buffers, the copy's, and the model has others now.
        Counters and derived buffers do not matter."""
        names = self.changed(buffers)
        if names:
            warn(
                f"{join_names(names)} of the model changed after the surface was made, and a flat "
                "vector of weights takes what was there then: give surface.point(model), swa.point "
                "or a posterior, which bring theirs, or make the surface of the model as it is "
                "now.",
            )

    def changed(self, buffers: Mapping[str, Tensor]) -> list[str]:
        """The names of those that differ."""
        model = self._model()
        if model is None:
            return []
        names = [n for n, t in buffers.items() if n not in self._derived and _may_matter(t)]
        theirs = named_buffers(model) if names else {}
        changed = []
        for name in names:
            tensor, ours = theirs.get(name), buffers[name]
            if tensor is None or tensor.is_inference():  # torch does not count their changes
                continue
            version = (id(tensor), tensor._version)
            if self._versions.get(name) == version:
                continue
            if tensor.shape == ours.shape and torch.equal(tensor.detach().to(ours), ours):
                self._versions[name] = version
            else:
                changed.append(name)
        return changed

    def __getstate__(self) -> dict[str, Any]:
        return {"_derived": self._derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy in another process has no model."""
        vars(self).update(state | {"_model": lambda: None, "_versions": {}})


def _may_matter(tensor: Tensor) -> bool:
    """Counters do not."""
    return tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex()
