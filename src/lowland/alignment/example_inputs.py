"""Example inputs for a model of which only the layers are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowland.core.template import Template
from lowland.errors import ConfigError

Inputs = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments

_COMMON_SIDES = (32, 28, 64, 224, 8, 16, 96, 128, 256)
#: side lengths of images to try, in this order
_SIDES = dict.fromkeys((*_COMMON_SIDES, *range(1, 64)))
_MAX_PIXELS = 256**2  # pixels of the largest image to try
_LAYERS_BY_NDIM: dict[int, tuple[type[nn.Module], ...]] = {
    1: (nn.Conv1d, nn.BatchNorm1d),
    2: (nn.Conv2d, nn.BatchNorm2d),
    3: (nn.Conv3d, nn.BatchNorm3d),
}


def model_inputs(
    template: Template, parameters: Mapping[str, Tensor], inputs: Any = None
) -> Inputs:
    """Arguments that the model accepts: `inputs`, or zeros of the first shape that it runs on.

    Raises:
        ConfigError: the model accepts none of them; the message ends in the model's own error.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(4 * 60 * 60, 2))
    >>> (images,), _ = model_inputs(Template(net), dict(net.named_parameters()))
    >>> images.shape
    torch.Size([2, 3, 64, 64])
    """
    candidates = candidate_batches(template.module) if inputs is None else [inputs]
    reason = "its first layer does not determine their shape"
    for candidate in candidates:
        args: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        if isinstance(candidate, Mapping):
            kwargs = {str(name): _to_cpu(value) for name, value in candidate.items()}
        else:
            positional = candidate if isinstance(candidate, tuple) else (candidate,)
            args = tuple(map(_to_cpu, positional))
        try:
            template(parameters, {}, args, kwargs)
        except Exception as error:  # models raise all kinds for a shape that they cannot take
            reason = str(error).partition("\n")[0] or type(error).__name__
        else:
            return args, kwargs
    raise ConfigError(
        f"inputs: found no batch that the model takes ({reason}); pass inputs= as a tensor, a "
        "tuple of arguments or a dict of keyword arguments."
    )


def candidate_batches(model: nn.Module) -> list[Tensor]:
    """Batches of two that suit the first layer whose inputs have a known size.

    >>> [batch.shape for batch in candidate_batches(nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))]
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
        for ndim, kinds in _LAYERS_BY_NDIM.items():
            if isinstance(module, kinds):
                channels = int(getattr(module, "in_channels", 0) or vars(module)["num_features"])
                shapes = [(channels, *[n] * ndim) for n in _SIDES if n**ndim <= _MAX_PIXELS]
                shapes = [(channels,), *shapes] if ndim == 1 else shapes
                return [torch.zeros(2, *shape, dtype=dtype) for shape in shapes]
    return []


def _to_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
