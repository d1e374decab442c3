"""Any optimizer and schedule of torch by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from lowland import checks
from lowland.errors import ConfigError
from lowland.trajectory import schedules

#: names for what most people mean, of schedules that end with the training
COSINE, LINEAR, CONSTANT = "cosine", "linear", "constant"


def optimizer_named(name: str, **arguments: Any) -> Callable[[Iterable[nn.Parameter]], Optimizer]:
    """A class of `torch.optim` with its arguments, to be given as `optimizer=`.

    Args:
        name: such as "AdamW"; upper and lower case are alike. arguments: its own, such as `lr`.

    Raises:
        ConfigError: an unknown name, argument or value.

    >>> make = optimizer_named("AdamW", lr=1e-3, weight_decay=0.05)
    >>> type(make([nn.Parameter(torch.zeros(2))])).__name__
    'AdamW'
    >>> optimizer_named("AdamV")
    Traceback (most recent call last):
    lowland.errors.ConfigError: optimizer: there is no 'AdamV' in torch.optim; did you mean ...
    """
    known = _classes(torch.optim, Optimizer)
    make = _class("optimizer", name, known, "in torch.optim")
    _check("optimizer", make, arguments, given=("params",))
    try:
        make([nn.Parameter(torch.zeros(1, 1))], **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"optimizer: {make.__name__}: {error}") from None
    return lambda params: make(params, **arguments)


def schedule_named(
    name: str, *, total: int | None = None, warmup: float = 0, **arguments: Any
) -> Callable[[Optimizer], LRScheduler]:
    r"""A learning rate schedule with its arguments, to be given as `schedule=`; stepped by steps.

    With a warm-up of w steps the learning rate is \(\eta (s + 1) / (w + 1)\) at step s < w, and
    then that of the schedule from its first step on.

    Args:
        name: "cosine": \(\tfrac12 \eta (1 + \cos(\pi s / n))\) over the n steps after the warm-up;
            "linear": \(\eta (1 - s / n)\); "constant"; or a class of `torch.optim.lr_scheduler`
            or of lowland, such as "OneCycleLR" or "DecaySchedule". Upper and lower case are alike.
        total: optimizer steps in all, the warm-up included: epochs times batches. "cosine",
            "linear" and lowland's schedules need it.
        warmup: steps; or below 1 their share of `total`.
        arguments: of the class, such as `eta_min` of "cosine" or `step_size` of "StepLR".

    Raises:
        ConfigError: an unknown name, argument or value; a missing `total`.

    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedule = schedule_named("linear", total=6, warmup=2)(optimizer)
    >>> rates = []
    >>> for _ in range(6):
    ...     rates.append(round(schedule.get_last_lr()[0], 4))
    ...     optimizer.step()
    ...     schedule.step()
    >>> rates
    [0.3333, 0.6667, 1.0, 0.75, 0.5, 0.25]
    """
    if total is not None:
        total = checks.whole("total", total, least=1)
    steps = _steps(warmup, total)
    rest = None if total is None else total - steps
    make = _schedule(name, rest, arguments)
    _try(make, steps, name)
    return lambda optimizer: _warmed(optimizer, make, steps)


def _steps(warmup: float, total: int | None) -> int:
    """Steps of a warm-up."""
    warmup = checks.number("warmup", warmup, least=0)
    if 0 < warmup < 1:
        if total is None:
            raise ConfigError(
                f"warmup: {warmup:g} is a share of all steps; give total=, or the steps themselves."
            )
        return round(warmup * total)
    steps = checks.whole("warmup", warmup if warmup != int(warmup) else int(warmup), least=0)
    if total is not None and steps >= total:
        raise ConfigError(f"warmup: expected fewer than the {total} steps in all, got {steps}.")
    return steps


def _schedule(
    name: str, rest: int | None, arguments: dict[str, Any]
) -> Callable[[Optimizer], LRScheduler]:
    """What follows the warm-up, in `rest` steps."""
    short: dict[str, tuple[Any, dict[str, Any]]] = {
        COSINE: (lr_scheduler.CosineAnnealingLR, {"T_max": rest}),
        LINEAR: (
            lr_scheduler.LinearLR,
            {"start_factor": 1.0, "end_factor": 0.0, "total_iters": rest},
        ),
        CONSTANT: (lr_scheduler.ConstantLR, {"factor": 1.0, "total_iters": 0}),
    }
    if name.lower() in short:
        cls, own = short[name.lower()]
        needs_total = name.lower() != CONSTANT
    else:
        known = _classes(lr_scheduler, LRScheduler) | _classes(schedules, LRScheduler)
        known = {n: c for n, c in known.items() if n != "ReduceLROnPlateau"}
        cls = _class("schedule", name, dict.fromkeys(short) | known, "of torch or lowland")
        needs_total = "total" in inspect.signature(cls).parameters
        own = {"total": rest} if needs_total else {}
    if needs_total and rest is None:
        raise ConfigError(f"schedule: {name} needs total=, the optimizer steps in all.")
    _check("schedule", cls, arguments, given=("optimizer", "last_epoch", "verbose", *own))
    return partial(cls, **own, **arguments)


def _warmed(
    optimizer: Optimizer, make: Callable[[Optimizer], LRScheduler], steps: int
) -> LRScheduler:
    if not steps:
        return make(optimizer)
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / (steps + 1), total_iters=steps)
    return lr_scheduler.SequentialLR(optimizer, [warmup, make(optimizer)], milestones=[steps])


def _try(make: Callable[[Optimizer], LRScheduler], steps: int, name: str) -> None:
    """Raises `ConfigError` for values that a class refuses, before anything is trained."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    try:
        _warmed(optimizer, make, steps)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"schedule: {name}: {error}") from None


def _classes(module: Any, base: type) -> dict[str, type]:
    """Those of a module that can be made."""
    return {
        name: cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls)
        and issubclass(cls, base)
        and cls is not base
        and not name.startswith("_")
        and name != "LRScheduler"
    }


def _class(what: str, name: str, known: Mapping[str, Any], where: str) -> Any:
    by_case = {n.lower(): n for n in known}
    if name in known or name.lower() in by_case:
        return known[name if name in known else by_case[name.lower()]]
    near = [by_case[n] for n in difflib.get_close_matches(name.lower(), by_case, n=1)]
    meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}."
    raise ConfigError(f"{what}: there is no {name!r} {where}; {meant}")


def _check(what: str, cls: Any, arguments: Mapping[str, Any], *, given: tuple[str, ...]) -> None:
    """Raises `ConfigError` for arguments that a class has not, or that it needs."""
    known = inspect.signature(cls).parameters
    free = [name for name in known if name not in given]
    for name in arguments:
        if name not in free:
            near = difflib.get_close_matches(name, free, n=1)
            instead = f"write {near[0]}= instead" if near else f"it takes {', '.join(free)}"
            raise ConfigError(f"{what}: {cls.__name__} has no argument {name}=; {instead}.")
    missing = [
        name
        for name in free
        if known[name].default is inspect.Parameter.empty and name not in arguments
    ]
    if missing:
        raise ConfigError(f"{what}: {cls.__name__} needs {', '.join(missing)}.")
