"""Names of parameters and buffers, without the prefixes that wrappers add."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from lowland.errors import ConfigError

Where = str | Callable[[str], bool] | None

# wrappers that put themselves into parameter names without being part of the model
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


def named_parameters(model: nn.Module) -> dict[str, Tensor]:
    """All parameters under every one of their names, wrappers' prefixes removed."""
    return clean(dict(model.named_parameters(remove_duplicate=False)))


def named_buffers(model: nn.Module) -> dict[str, Tensor]:
    """All buffers, those that a state dict leaves out too, wrappers' prefixes removed."""
    return clean(dict(model.named_buffers()))


def named_state(model: nn.Module, *, aliases: bool = True) -> dict[str, Tensor]:
    """All parameters and buffers, wrappers' prefixes removed; `aliases`: parameters under every
    one of their names.

    >>> sorted(named_state(nn.DataParallel(nn.BatchNorm1d(1, affine=False))))
    ['num_batches_tracked', 'running_mean', 'running_var']
    """
    parameters = dict(model.named_parameters(remove_duplicate=not aliases))
    return clean(parameters) | named_buffers(model)


def clean_names(names: Iterable[str]) -> dict[str, str]:
    """{name as it stands: name without the components that wrappers add}.

    Where two names would become one, none is changed: the "module" is the model's own.

    >>> clean_names(["module.fc.weight", "module._orig_mod.fc.bias"])
    {'module.fc.weight': 'fc.weight', 'module._orig_mod.fc.bias': 'fc.bias'}
    """
    names = list(names)
    short = {n: ".".join(c for c in n.split(".") if c not in _WRAPPERS) or n for n in names}
    return short if len(set(short.values())) == len(names) else {n: n for n in names}


def clean(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under their `clean_names`."""
    short = clean_names(tensors)
    return {short[name]: tensor for name, tensor in tensors.items()}


def name_filter(where: Where, *, argument: str = "where") -> Callable[[str], bool]:
    """`where` as a function of names. `argument`: what the user calls it."""
    if where is None:
        return lambda name: True
    if callable(where):
        return where
    try:
        pattern = re.compile(where)
    except re.error as error:
        raise ConfigError(
            f"{argument}: {where!r} is not a regular expression ({error})."
        ) from error
    return lambda name: pattern.search(name) is not None


def join_names(names: list[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
