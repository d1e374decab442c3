"""The sections of a configuration, with the default, meaning, unit and limits of each key."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from lowland.core.half_precision import has_half_precision
from lowland.core.threads import MAX_THREADS
from lowland.errors import ConfigError, LowlandError
from lowland.runs.keys import Section, key
from lowland.runs.shape_sections import Connect, Growth, Inference
from lowland.runs.training_sections import CSGLD, FGE, Average, Snapshot, Train
from lowland.runs.user_code import error_line

Threads = Annotated[int, Field(ge=1, le=MAX_THREADS)]


class Factory(Section):
    """A callable, `package.module:callable`, and its keyword arguments."""

    is_value: ClassVar[bool] = True

    name: str
    args: dict[str, Any] = Field(default={})

    @field_validator("name")
    @classmethod
    def _has_colon(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.]+:[\w.]+", name):
            raise ValueError("expected package.module:callable")
        return name

    def load(self) -> Callable[..., Any]:
        """Imports the callable."""
        module, _, attribute = self.name.partition(":")
        try:
            target: Any = importlib.import_module(module)
            for part in attribute.split("."):
                target = getattr(target, part)
        except Exception as error:
            raise ConfigError(
                f"{self.name} cannot be imported ({type(error).__name__}: {error}); check the "
                "spelling, and have its package beside the configuration or in the working folder."
            ) from error
        if not callable(target):
            raise ConfigError(f"{self.name}: expected a callable, got {type(target).__name__}.")
        function: Callable[..., Any] = target
        return function

    def call(self, **defaults: Any) -> Any:
        """The result of the callable with its arguments, put over `defaults`.

        Raises `ConfigError`, with the place, for an error in the callable.
        """
        function, args = self.load(), {**defaults, **self.args}
        try:
            inspect.signature(function).bind(**args)
        except TypeError as error:
            raise ConfigError(f"{self.name}: {error}; check its args.") from None
        except ValueError:  # some builtins have no signature
            pass
        try:
            return function(**args)
        except LowlandError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{self.name}: {error_line(error)}; check its args and what it reads."
            ) from error


class Validation(Section):
    """Validation examples taken from the training examples, where the data give none."""

    share: float = key(0.1, "share of the training examples", gt=0, lt=1)
    by: Literal["random", "stratified", "group"] = key(
        "random", "how they are chosen: `stratified` by class, `group` by `groups` of the data"
    )
    seed: int = key(0, "seed of the choice", ge=0, lt=2**31)


class Repeat(Section):
    """The same run for many values of one key, and one table of them all."""

    over: str = key("seed", "key whose value changes, such as `seed`", pattern=r"^\w+(\.\w+)*$")
    values: Annotated[int, Field(ge=1)] | list[Any] | None = key(
        None, "values of the key: a list, or n for 0 to n - 1; `null`: one run"
    )

    def each(self) -> list[Any]:
        """The values; none where nothing is repeated."""
        return list(range(self.values)) if isinstance(self.values, int) else self.values or []


def default_methods() -> list[str]:
    """The methods that run where a configuration names none."""
    from lowland.runs.methods import METHODS

    return [name for name, method in METHODS.items() if not method.by_request]


class Config(Section):
    """A run: see `configs/digits.yaml`."""

    model: Factory = key(
        ..., "makes a new `nn.Module`; imported from the working folder or the file's"
    )
    data: Factory = key(..., "makes a dict with `train`, `validation` and `test`")
    task: Literal["classification", "regression", "language"] | Factory = key(
        "classification", "task, by name or made by a callable"
    )
    out: str = key("runs/run", "run folder", coerce_numbers_to_str=True)
    methods: list[str] = Field(
        default_factory=default_methods,
        description="methods of the table, by name or `package.module:Class`",
    )
    ensemble: int = key(3, "networks of the deep ensemble, trajectories of MultiSWAG", ge=2)
    samples: int = key(30, "samples of each posterior", ge=1)
    start_from: str | None = key(
        None,
        "checkpoint of a pretrained network with which every training begins: a file of weights, "
        "or a folder of the Hugging Face Trainer or of Lightning; `null`: random weights",
    )
    seed: int = key(
        0, "seed of initial weights, orders and noise; network i has seed + i", ge=0, lt=2**31
    )
    threads: Threads | Literal["auto"] = key(
        "auto", "threads of the whole run; `auto`: 1 unless more are clearly faster"
    )
    plan: str | None = key(
        None,
        "`plan.json` of another run, to compute as it did; `null`: timed before the run begins",
    )
    device: str | None = key(None, "where to compute, such as `cuda`; `null`: the CPU")
    autocast: Literal["auto", "bfloat16", "float16"] | None = key(
        None,
        "type of automatic mixed precision; `auto`: bfloat16 where the device computes in it, else "
        "none; `null`: none",
    )
    channels_last: bool = key(False, "memory format of images: channels last")
    compile: bool = key(
        False,
        "train on code of `torch.compile`: it takes half a minute, then convolutional networks "
        "with BatchNorm train a fifth faster or more; requires a C++ compiler",
    )
    bn_rows: int = key(4096, "examples for BatchNorm statistics", ge=2)
    reestimate: str | None = key(
        None,
        "regular expression for names of buffers that are statistics of a layer of your own, which "
        "are estimated for every network that was not trained",
    )
    eval_batch_size: int = key(512, "batch size outside of training", unit="examples", ge=1)
    validation: Validation | None = None  # None: the data give them
    train: Train = Train()
    average: Average = Average()
    fge: FGE = FGE()
    snapshot: Snapshot = Snapshot()
    csgld: CSGLD = CSGLD()
    simplex: Growth = Growth()
    subspace: Inference = Inference()
    connect: Connect | None = None
    repeat: Repeat | None = None

    @field_validator("autocast")
    @classmethod
    def _of_the_device(cls, autocast: str | None, info: ValidationInfo) -> str | None:
        """`auto` as the device's own; a device that torch does not know is refused later."""
        if autocast != "auto":
            return autocast
        try:
            return "bfloat16" if has_half_precision(info.data.get("device") or "cpu") else None
        except RuntimeError:
            return None

    @field_validator("methods")
    @classmethod
    def _each_once(cls, methods: list[str]) -> list[str]:
        from lowland.runs.methods import method_named

        if not methods or len(set(methods)) < len(methods):
            raise ValueError("expected at least one method, each of them once")
        for name in methods:
            try:
                method_named(name)
            except ConfigError as error:
                raise ValueError(str(error).removeprefix("methods: ").rstrip(".")) from None
        return methods
