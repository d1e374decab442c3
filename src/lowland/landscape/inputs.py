"""What a model is called with when nothing but its layers is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowland.core.template import Template
from lowland.errors import ConfigError

Inputs = tuple[tuple[Any, ...], dict[str, Any]]  # positional arguments, and named ones

_COMMON = (32, 28, 64, 224, 8, 16, 96, 128, 256)
_SIDES = dict.fromkeys((*_COMMON, *range(1, 64)))  # of images, in the order that they are tried
_MOST = 256**2  # pixels of an image that is tried
_LAYERS: dict[int, tuple[type[nn.Module], ...]] = {
    1: (nn.Conv1d, nn.BatchNorm1d),
    2: (nn.Conv2d, nn.BatchNorm2d),
    3: (nn.Conv3d, nn.BatchNorm3d),
}


def arguments(template: Template, parameters: Mapping[str, Tensor], given: Any = None) -> Inputs:
    """Arguments that the model runs on: `given`, or zeros of the first shape that it takes.

    Raises:
        ConfigError: the model takes none of them; it has the model's own words.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(4 * 60 * 60, 2))
    >>> (images,), _ = arguments(Template(net), dict(net.named_parameters()))
    >>> images.shape
    torch.Size([2, 3, 64, 64])
    """
    tried = likely(template.module) if given is None else [given]
    last = "its first layer does not tell their shape"
    for one in tried:
        named = one if isinstance(one, Mapping) else {}
        rest = one if isinstance(one, tuple) else () if isinstance(one, Mapping) else (one,)
        args = tuple(_local(value) for value in rest)
        kwargs = {str(name): _local(value) for name, value in named.items()}
        try:
            template(parameters, {}, args, kwargs)
        except Exception as error:  # whatever a model raises for a shape that it cannot take
            last = str(error).partition("\n")[0] or type(error).__name__
        else:
            return args, kwargs
    raise ConfigError(
        f"inputs: found no batch that the model takes ({last}); pass inputs=, as a tensor, a tuple "
        "of arguments or a dict of named ones."
    )


def likely(model: nn.Module) -> list[Tensor]:
    """Batches of two that suit the first layer whose inputs have a known size.

    >>> [batch.shape for batch in likely(nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))]
    [torch.Size([2, 3])]
    """
    dtype = next(model.parameters()).dtype
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            return [torch.zeros(2, 8, dtype=torch.int64)]
        if isinstance(module, nn.Linear):
            return [torch.zeros(2, module.in_features, dtype=dtype)]
        if isinstance(module, nn.LayerNorm):
            return [torch.zeros(2, *module.normalized_shape, dtype=dtype)]
        for ndim, kinds in _LAYERS.items():
            if isinstance(module, kinds):
                channels = int(getattr(module, "in_channels", 0) or vars(module)["num_features"])
                shapes = [(channels, *[n] * ndim) for n in _SIDES if n**ndim <= _MOST]
                shapes = [(channels,), *shapes] if ndim == 1 else shapes
                return [torch.zeros(2, *shape, dtype=dtype) for shape in shapes]
    return []


def _local(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
