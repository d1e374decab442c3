"""The sections of a configuration, with the default, meaning, unit and limits of each key."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from lowland.core.threads import MAX_THREADS
from lowland.errors import ConfigError, LowlandError
from lowland.runs.keys import Section, key
from lowland.runs.user_code import error_line

Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveList = Annotated[list[Positive], Field(min_length=1)]
Multiple = Annotated[float, Field(ge=1, allow_inf_nan=False)]
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


class Train(Section):
    """How every network is trained."""

    optimizer: str = key("SGD", "class of `torch.optim`, such as `AdamW`")
    optimizer_args: dict[str, Any] = key(
        {}, "arguments of the optimizer besides `lr`, `weight_decay`, and `momentum` of SGD"
    )
    schedule: str | None = key(
        None,
        "learning rate of annealed networks: `cosine`, `linear`, `constant`, or a class of "
        "`torch.optim.lr_scheduler` or lowland; `null`: `DecaySchedule`",
    )
    schedule_args: dict[str, Any] = key({}, "arguments of the schedule")
    warmup: float = key(
        0,
        "linear warm-up; a number below 1 is a share of all steps",
        unit="steps",
        ge=0,
        allow_inf_nan=False,
    )
    epochs: int = key(50, "length of training", unit="epochs", ge=1)
    batch_size: int = key(64, "batch size of training", unit="examples", ge=1)
    lr: float = key(0.1, "learning rate", gt=0, allow_inf_nan=False)
    momentum: float = key(0.9, "momentum of SGD", ge=0, lt=1)
    weight_decay: float = key(5e-4, "weight decay", ge=0, allow_inf_nan=False)
    accumulate: int = key(1, "batches whose mean gradient makes a step", unit="batches", ge=1)
    clip: float | None = key(None, "largest norm of a gradient; `null`: no clipping", gt=0)
    drop_last: bool = key(
        False,
        "leave out a last batch that is smaller than the others: a batch of one example stops "
        "BatchNorm",
    )


class Average(Section):
    """The SGD trajectory whose iterates are averaged."""

    lr: Positive | Literal["auto"] = key(
        "auto",
        "constant learning rate of the trajectory; `auto`: short trials from where averaging "
        "starts choose it on validation examples, and SGD's own schedule stays where averaging is "
        "no better",
    )
    start: float | None = key(
        None,
        "share of the budget before averaging starts; `null`: 0.9 with `lr: auto`, else 0.75",
        gt=0,
        lt=1,
    )
    every: float | None = key(
        None,
        "distance between iterates; `null`: 1, or with `lr: auto` a twentieth of the trajectory "
        "where that is shorter",
        unit="epochs",
        gt=0,
        allow_inf_nan=False,
    )
    budget: Multiple | Annotated[list[Multiple], Field(min_length=1)] = key(
        1.0,
        "where the trajectory of `swa`, `swag` and `swag-diagonal` ends, in multiples of "
        "`train.epochs`; a list gives each of them a row for every number",
    )
    rank: int = key(20, "deviations that SWAG keeps", ge=2)
    ema_decay: float = key(0.99, "decay of the EMA in one step", ge=0, lt=1)
    ema_warmup: bool = key(
        False, "let the decay of the EMA grow to `ema_decay`, for runs of few steps"
    )
    table: bool = key(
        False,
        "evaluate each averaged iterate, the average of those up to it, and their ensemble on the "
        "test examples: two passes an iterate",
    )
    scales: list[Scale] = key(
        [0.1, 0.25, 0.5, 1.0, 2.0],
        "covariance scales of SWAG, of which the best on validation examples is taken",
        min_length=1,
    )

    @field_validator("budget")
    @classmethod
    def _each_budget_once(cls, budget: float | list[float]) -> float | list[float]:
        if isinstance(budget, list) and len(set(budget)) < len(budget):
            raise ValueError("expected each number once")
        return budget

    def budgets(self) -> list[float]:
        """The multiples of SGD's epochs, in order."""
        return sorted(self.budget) if isinstance(self.budget, list) else [self.budget]


class FGE(Section):
    """Cycles from where averaging starts, to the end of the same budget."""

    cycle: float | None = key(
        None,
        "length of a cycle, rounded to an even number of steps; `null`: 2, or a quarter of the "
        "averaging where that is shorter",
        unit="epochs",
        gt=0,
        allow_inf_nan=False,
    )
    high: float | None = key(
        None,
        "learning rate at the start of a cycle; `null`: that of the averaging",
        gt=0,
        allow_inf_nan=False,
    )
    low: float | None = key(
        None,
        "learning rate in the middle of a cycle, at most `high`; `null`: a hundredth of it",
        gt=0,
        allow_inf_nan=False,
    )

    @model_validator(mode="after")
    def _falls(self) -> FGE:
        if self.high is not None and self.low is not None and self.low > self.high:
            raise ValueError(f"expected low <= high, which is {self.high}")
        return self


class Snapshot(Section):
    """Cycles of a cosine learning rate with warm restarts, from a fresh network to the end of the
    budget; their members make the snapshot ensemble."""

    cycles: int = key(
        5,
        "cycles, each with a member at its end; the budget in equal parts, rounded to whole steps",
        ge=1,
    )
    lr: float | None = key(None, "learning rate at the start of a cycle; `null`: `train.lr`", gt=0)


class CSGLD(Section):
    """Cycles as those of the snapshot ensemble, of which the last part has Langevin noise; their
    members are samples of the posterior."""

    cycles: int = key(4, "cycles; the budget in equal parts, rounded to whole steps", ge=1)
    lr: float | None = key(None, "learning rate at the start of a cycle; `null`: `train.lr`", gt=0)
    members: int = key(
        3, "members of a cycle, evenly spaced over its part with noise; the last at its end", ge=1
    )
    explore: float = key(0.8, "share of a cycle before the noise", ge=0, lt=1)
    temperature: float = key(
        1.0,
        "temperature of the noise: 1 samples the posterior with the prior of `train.weight_decay`",
        ge=0,
        allow_inf_nan=False,
    )


class Connect(Section):
    """Curves between the first two annealed networks, and the plane of the first one."""

    kinds: list[Literal["bezier", "chain"]] = key(["bezier"], "curves to fit", min_length=1)
    bends: int = key(1, "free control points of a curve", ge=1)
    epochs: int | None = key(
        None, "length of the fit; `null`: that of a network's training", unit="epochs", ge=1
    )
    lr: float = key(
        0.05,
        "learning rate of the fit; it falls from half of the budget on",
        gt=0,
        allow_inf_nan=False,
    )
    points: int = key(61, "points along a curve at which losses are measured", ge=3)
    examples: int = key(10_000, "training examples for losses along curves", ge=2)
    resolution: int = key(41, "points along each axis of the plane; 0: no plane", ge=0)


class Growth(Section):
    """Simplexes around the first annealed networks, from which the method espro draws."""

    components: int = key(1, "simplexes; they share the `samples` of the run", ge=1)
    vertices: int = key(4, "vertices of a simplex, the network included", ge=2)
    epochs: int = key(10, "length of fitting each vertex", unit="epochs", ge=1)
    samples: int = key(5, "points of the simplex in a step", ge=1)
    lr: float = key(
        0.05,
        "learning rate of the fit; it falls from half of the budget on",
        gt=0,
        allow_inf_nan=False,
    )
    strength: float | None = key(
        None,
        "weight of the volume in the loss, lambda* of the paper; `null`: 1e-6, or 0.1 for vertices "
        "that several networks share",
        ge=0,
        allow_inf_nan=False,
    )
    jitter: float = key(
        1e-2,
        "distance from the centroid at which a new vertex begins",
        unit="mean edge lengths",
        gt=0,
        allow_inf_nan=False,
    )
    rise: float = key(
        0.1,
        "how far the loss inside may exceed that of the network; a vertex that brings it higher is "
        "left out, and growth ends",
        unit="nats per example",
        ge=0,
    )
    points: int = key(20, "random points at which a new vertex is judged", ge=1)
    examples: int = key(10_000, "training examples for losses at these points", ge=2)


class Inference(Section):
    """The posterior in a subspace, from which the method subspace draws."""

    kind: Literal["pca", "random", "curve", "hessian"] = key(
        "pca",
        "what spans the subspace: principal components of SGD iterates, random directions, a curve "
        "of `lowland connect` (in `lowland subspace` alone), leading eigenvectors of the Hessian",
    )
    rank: int = key(
        5, "dimensions; `pca` requires one iterate more, and a curve has its own number", ge=1
    )
    sampler: Literal["ess", "slice", "nuts", "sgld", "vi", "flow", "grid"] = key(
        "ess", "sampler; `grid` for at most 3 dimensions"
    )
    temperature: Literal["tune"] | Positive | PositiveList = key(
        "tune",
        "divisor of the log-likelihood; of a list, or with `tune` of eleven from 0.1 to 10,000, "
        "the best on validation examples",
    )
    prior_scale: Literal["tune"] | Positive | PositiveList = key(
        1.0,
        "standard deviation of the prior, in units of the directions; `tune` tries 0.3, 1 and 3",
    )
    chains: int = key(16, "chains that are sampled at once", ge=1)
    samples: int = key(50, "samples of each chain after its warm-up", ge=1)
    warmup: int | None = key(
        None,
        "transitions of each chain before its samples; `null`: 200, of `nuts` 300, of `sgld` 1,000",
        ge=0,
    )
    examples: int | None = key(
        None, "training examples of the likelihood, without augmentation; `null`: all", ge=2
    )

    @field_validator("sampler")
    @classmethod
    def _few_dimensions(cls, sampler: str, info: ValidationInfo) -> str:
        rank = info.data.get("rank", 1)
        if sampler == "grid" and rank > 3 and info.data.get("kind") != "curve":
            raise ValueError(f"expected a rank of at most 3 for a grid, which is {rank}")
        return sampler


class Validation(Section):
    """Validation examples taken from the training examples, where the data give none."""

    share: float = key(0.1, "share of the training examples", gt=0, lt=1)
    by: Literal["random", "stratified", "group"] = key(
        "random", "how they are chosen: `stratified` by class, `group` by `groups` of the data"
    )
    seed: int = key(0, "seed of the choice", ge=0, lt=2**31)


class Repeat(Section):
    """The same run for many values of one key, and one table of them all."""

    over: str = key(..., "key whose value changes, such as `seed`", pattern=r"^\w+(\.\w+)*$")
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
    autocast: Literal["bfloat16", "float16"] | None = key(
        None, "type of automatic mixed precision; `null`: none"
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
