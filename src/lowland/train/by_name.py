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

#: short names of schedules that end with the training
COSINE, LINEAR, CONSTANT = "cosine", "linear", "constant"


def optimizer_named(name: str, **arguments: Any) -> Callable[[Iterable[nn.Parameter]], Optimizer]:
    """A class of `torch.optim` with its arguments, for `optimizer=`.

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
    classes = _public_subclasses(torch.optim, Optimizer)
    make = _find_class("optimizer", name, classes, "in torch.optim")
    _check_arguments("optimizer", make, arguments, internal=("params",))
    try:
        make([nn.Parameter(torch.zeros(1, 1))], **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"optimizer: {make.__name__}: {error}") from None
    return lambda params: make(params, **arguments)


def schedule_named(
    name: str, *, total: int | None = None, warmup: float = 0, **arguments: Any
) -> Callable[[Optimizer], LRScheduler]:
    r"""A learning rate schedule with its arguments, for `schedule=`; stepped once a step.

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
    >>> lrs = []
    >>> for _ in range(6):
    ...     lrs.append(round(schedule.get_last_lr()[0], 4))
    ...     optimizer.step()
    ...     schedule.step()
    >>> lrs
    [0.3333, 0.6667, 1.0, 0.75, 0.5, 0.25]
    """
    if total is not None:
        total = checks.whole("total", total, least=1)
    steps = _warmup_steps(warmup, total)
    rest = None if total is None else total - steps
    make = _schedule(name, rest, arguments)
    _try_schedule(make, steps, name)
    return lambda optimizer: _with_warmup(optimizer, make, steps)


def _warmup_steps(warmup: float, total: int | None) -> int:
    """Steps of a warm-up."""
    warmup = checks.number("warmup", warmup, least=0)
    if 0 < warmup < 1:
        if total is None:
            raise ConfigError(
                f"warmup: {warmup:g} is a share of all steps; give total=, or a number of steps."
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
    short_names: dict[str, tuple[Any, dict[str, Any]]] = {
        COSINE: (lr_scheduler.CosineAnnealingLR, {"T_max": rest}),
        LINEAR: (
            lr_scheduler.LinearLR,
            {"start_factor": 1.0, "end_factor": 0.0, "total_iters": rest},
        ),
        CONSTANT: (lr_scheduler.ConstantLR, {"factor": 1.0, "total_iters": 0}),
    }
    if name.lower() in short_names:
        cls, defaults = short_names[name.lower()]
        needs_total = name.lower() != CONSTANT
    else:
        modules = (lr_scheduler, schedules)
        classes = {n: c for m in modules for n, c in _public_subclasses(m, LRScheduler).items()}
        classes.pop("ReduceLROnPlateau")  # is stepped with a metric
        where = "of torch or lowland"
        cls = _find_class("schedule", name, dict.fromkeys(short_names) | classes, where)
        needs_total = "total" in inspect.signature(cls).parameters
        defaults = {"total": rest} if needs_total else {}
    if needs_total and rest is None:
        raise ConfigError(f"schedule: {name} needs total=, the optimizer steps in all.")
    _check_arguments(
        "schedule", cls, arguments, internal=("optimizer", "last_epoch", "verbose", *defaults)
    )
    return partial(cls, **defaults, **arguments)


def _with_warmup(
    optimizer: Optimizer, make: Callable[[Optimizer], LRScheduler], steps: int
) -> LRScheduler:
    if not steps:
        return make(optimizer)
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / (steps + 1), total_iters=steps)
    return lr_scheduler.SequentialLR(optimizer, [warmup, make(optimizer)], milestones=[steps])


def _try_schedule(make: Callable[[Optimizer], LRScheduler], steps: int, name: str) -> None:
    """Raises `ConfigError` for values that a class refuses, before anything is trained."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    try:
        _with_warmup(optimizer, make, steps)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"schedule: {name}: {error}") from None


def _public_subclasses(module: Any, base: type) -> dict[str, type]:
    """The public subclasses of `base` in a module, by name."""
    return {
        name: cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls)
        and issubclass(cls, base)
        and cls is not base
        and not name.startswith("_")
        and name != "LRScheduler"
    }


def _find_class(what: str, name: str, classes: Mapping[str, Any], where: str) -> Any:
    by_case = {n.lower(): n for n in classes}
    if name in classes or name.lower() in by_case:
        return classes[name if name in classes else by_case[name.lower()]]
    near = [by_case[n] for n in difflib.get_close_matches(name.lower(), by_case, n=1)]
    others = f"there are {', '.join(sorted(classes))}."
    advice = f"did you mean {near[0]!r}?" if near else others
    raise ConfigError(f"{what}: there is no {name!r} {where}; {advice}")


def _check_arguments(
    what: str, cls: Any, arguments: Mapping[str, Any], *, internal: tuple[str, ...]
) -> None:
    """Raises `ConfigError` for unknown and for missing arguments of a class; `internal`: those that
    are set here."""
    parameters = inspect.signature(cls).parameters
    names = [name for name in parameters if name not in internal]
    for name in arguments:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            instead = f"write {near[0]}= instead" if near else f"it takes {', '.join(names)}"
            raise ConfigError(f"{what}: {cls.__name__} has no argument {name}=; {instead}.")
    missing = [
        name
        for name in names
        if parameters[name].default is inspect.Parameter.empty and name not in arguments
    ]
    if missing:
        raise ConfigError(f"{what}: {cls.__name__} needs {', '.join(missing)}.")
