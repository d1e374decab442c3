"""The options of training functions, as one value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypedDict, Unpack

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lowland import checks
from lowland.artifacts import Checkpoint
from lowland.errors import ConfigError
from lowland.files import PathLike
from lowland.progress import Progress
from lowland.train.batches import Batches, num_batches
from lowland.train.sam import SAM


class StepCollector(Protocol):
    """An object that collects iterates after each step: see `lowland.Collector`."""

    def step(self, model: nn.Module) -> bool: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class TrainKeywords(TypedDict, total=False):
    """The keyword arguments that stand for `TrainOptions`; None: as in `options`."""

    options: TrainOptions | None
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None
    schedule: Callable[[Optimizer], LRScheduler] | None
    accumulate: int | None
    clip: float | None
    sam: float | None
    sam_adaptive: bool | None
    drop_last: bool | None
    autocast: bool | str | torch.dtype | None
    channels_last: bool | None
    compile: bool | None
    seed: int | None
    checkpoint: Checkpoint | PathLike | None
    checkpoint_steps: int | None
    progress: Progress | None


@dataclass(frozen=True)
class TrainOptions:
    """How `sgd`, `fit`, `sgd_members`, `spro` and `connect_modes` train.

    Each of them takes `options=`, or keyword arguments with the names of the fields, or both; of
    the keyword arguments those that are None change nothing.

    Args:
        optimizer: made from the parameters; None: SGD, learning rate 0.05, momentum 0.9. See
            `optimizer_named`. One whose step needs a closure, such as LBFGS, gets one: the
            loss of the same batches at the weights of the moment; its passes do not change
            BatchNorm statistics and other buffers.
        schedule: made from the optimizer, and stepped once an optimizer step; None: constant, and
            of shapes `DecaySchedule` where no optimizer is given either. See `schedule_named`.
        accumulate: batches per optimizer step, whose gradient is the mean of theirs.
        clip: the largest norm of the gradient of the optimizer's parameters.
        sam: trains by `SAM` of this radius around the optimizer, at two passes a step; of a
            shape, it perturbs the free anchors together; each of many networks side by side is
            perturbed by its own gradient. sam_adaptive: as ASAM, whose radius is about ten times
            as large.
        drop_last: leaves out a last batch that is smaller than the first: BatchNorm cannot
            normalise a batch of one example.
        autocast: True, a dtype or its name for `torch.autocast`; float16 on a GPU scales the loss.
            For shapes, the surface decides.
        channels_last: memory format of images and convolutions. For shapes, the surface decides.
        compile: the model by `torch.compile`.
        seed: of dropout and other noise; the caller's random state does not change.
        checkpoint: a file to write the whole state to, before the first step, every 20 seconds (or
            every `checkpoint_steps` steps) and at the end, and to continue from if it is there.
        progress: True for a bar, or a callable of (done, total).

    Raises:
        ConfigError: numbers of batches or steps below 1, a norm or radius that is not positive.

    >>> options = TrainOptions(clip=1.0)
    >>> options.override(seed=3, clip=None).clip
    1.0
    >>> TrainOptions(accumulate=0)
    Traceback (most recent call last):
    lowland.errors.ConfigError: accumulate: expected a whole number of at least 1, got 0.
    """

    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None
    schedule: Callable[[Optimizer], LRScheduler] | None = None
    accumulate: int = 1
    clip: float | None = None
    sam: float | None = None
    sam_adaptive: bool = False
    drop_last: bool = False
    autocast: bool | str | torch.dtype | None = None
    channels_last: bool = False
    compile: bool = False
    seed: int = 0
    checkpoint: Checkpoint | PathLike | None = None
    checkpoint_steps: int | None = None
    progress: Progress = False

    def __post_init__(self) -> None:
        checks.fields(self, checks.whole, "accumulate", "checkpoint_steps", least=1)
        checks.fields(self, checks.number, "clip", "sam", above=0)
        object.__setattr__(self, "seed", checks.seed(self.seed))
        if self.sam_adaptive and self.sam is None:
            raise ConfigError("sam_adaptive: expected a radius beside it; write sam=0.5.")
        checks.function(
            "optimizer", self.optimizer, example="lambda params: torch.optim.SGD(params, lr=0.1)"
        )
        checks.function(
            "schedule", self.schedule, example="lambda optimizer: ll.DecaySchedule(optimizer, ...)"
        )

    def override(self, **keywords: Unpack[TrainKeywords]) -> TrainOptions:
        """The options of a call: `options=` in place of these, and each keyword that is not None
        in place of the field of its name."""
        base = keywords.pop("options", None) or self
        if not isinstance(base, TrainOptions):
            raise ConfigError(f"options: expected TrainOptions, got {type(base).__name__}.")
        changes = {name: value for name, value in keywords.items() if value is not None}
        return replace(base, **changes) if changes else base  # type: ignore[arg-type]

    def optimizer_of(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimizer of parameters; a `SAM` where its radius is given."""
        make = self.optimizer or partial(torch.optim.SGD, lr=0.05, momentum=0.9)
        base = make(parameters)
        return base if self.sam is None else SAM(base, rho=self.sam, adaptive=self.sam_adaptive)

    def schedule_of(self, optimizer: Optimizer) -> LRScheduler | None:
        """The schedule of an optimizer; raises `ConfigError` for one that needs metrics."""
        schedule = None if self.schedule is None else self.schedule(optimizer)
        if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise ConfigError(
                "schedule: ReduceLROnPlateau needs a metric at each step, and schedules here get "
                "the step alone; use ll.DecaySchedule, or one of torch's others."
            )
        return schedule

    def require_default(self, *names: str, instead: str) -> None:
        """Raises `ConfigError` for an option that does not go with a function."""
        for name in names:
            if getattr(self, name) != getattr(_DEFAULT, name):
                raise ConfigError(f"{name}: got {getattr(self, name)!r}; {instead}.")


_DEFAULT = TrainOptions()


def require_surface_decides(options: TrainOptions) -> None:
    """Raises `ConfigError` for options that the surface decides: precision and memory format."""
    options.require_default(
        "autocast",
        "channels_last",
        instead="the surface decides it: give it to LossSurface",
    )


def require_collectors(collectors: Any) -> None:
    """Raises `ConfigError` unless these are objects with `step`, in a sequence."""
    is_list = isinstance(collectors, list | tuple)
    wrong = [c for c in collectors if not hasattr(c, "step")] if is_list else [collectors]
    if wrong:
        raise ConfigError(
            f"collectors: expected a list of ll.Collector, got {type(wrong[0]).__name__}; write "
            "collectors=[ll.Collector(swa, when=ll.Every(steps))]."
        )


def training_settings(
    data: Any, optimizer: Optimizer, schedule: LRScheduler | None
) -> dict[str, Any]:
    """Data, optimizer and schedule as plain values: what a checkpoint compares."""
    groups = [
        ", ".join(f"{k}={v}" for k, v in group.items() if k != "params")
        for group in optimizer.param_groups
    ]
    names = ("num_examples", "batch_size", "shuffle", "seed", "drop_last")
    return {
        "batches": num_batches(data),
        "data": {k: getattr(data, k) for k in names} if isinstance(data, Batches) else None,
        "examples": data.content_hash() if isinstance(data, Batches) else None,
        "optimizer": f"{type(optimizer).__name__}({'; '.join(groups)})",
        "schedule": f"{type(schedule).__name__}{_schedule_numbers(schedule)}",
    }


def _schedule_numbers(schedule: LRScheduler | None) -> str:
    """The numbers of a new schedule; functions that it may hold are not compared."""
    if schedule is None:
        return ""
    kinds = (int, float, str, list, tuple)
    values = {k: v for k, v in schedule.state_dict().items() if isinstance(v, kinds)}
    texts = (f"{k}={v}" for k, v in sorted(values.items()) if " at 0x" not in str(v))
    return f"({', '.join(texts)})"
