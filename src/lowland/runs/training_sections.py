"""The sections of trainings: SGD, averages of its iterates, and cycles."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lowland.runs.keys import Decay, Multiple, Positive, Scale, Section, key


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
    sam: float | None = key(
        None,
        "radius of sharpness-aware minimisation, in the norm of all weights: each step takes two "
        "passes, and an epoch counts twice in the table; `null`: plain steps",
        gt=0,
        allow_inf_nan=False,
    )
    sam_adaptive: bool = key(
        False,
        "perturb each weight in proportion to its size (ASAM), with `train.sam` about ten times as "
        "large",
    )
    drop_last: bool = key(
        False,
        "leave out a last batch that is smaller than the others: a batch of one example stops "
        "BatchNorm",
    )

    @model_validator(mode="after")
    def _radius_of_asam(self) -> Train:
        if self.sam_adaptive and self.sam is None:
            raise ValueError("sam_adaptive: ASAM expects a radius; add sam: 0.5")
        return self

    @property
    def passes(self) -> int:
        """Forward and backward passes of a step."""
        return 1 if self.sam is None else 2


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
        "share of the budget before averaging starts; it is not chosen: each would be a training "
        "of its own; `null`: 0.75, or with `lr: auto` what leaves the last tenth in whole epochs",
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
    rank: int = key(
        20,
        "deviations that SWAG keeps; the paper's, since a choice gains less than its error",
        ge=2,
    )
    ema_decay: float = key(0.99, "decay of the EMA of all steps, in one step", ge=0, lt=1)
    ema_decays: list[Decay] = key(
        [0.8, 0.9, 0.95],
        "decays of EMAs of the stored iterates, from one to the next, which compete with that of "
        "all steps on validation examples where that costs at most 1% of training; `[]`: none do",
    )
    ema_warmup: bool = key(
        False, "let the decay of the EMA grow to `ema_decay`, for runs of few steps"
    )
    retrain: bool = key(
        False,
        "after all choices, train the networks again with the validation examples among the "
        "training examples; table and `best/` are those of the new weights, and costs include both",
    )
    table: bool = key(
        False,
        "evaluate each averaged iterate, the average of those up to it, and their ensemble on the "
        "test examples: two passes an iterate",
    )
    scales: list[Scale] = key(
        [0.1, 0.25, 0.5, 1.0, 2.0],
        "covariance scales of SWAG, of which the best on validation examples is chosen; fewer "
        "compete where they would cost more than 10% of training and some seconds",
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
        "length of a cycle, rounded to an even number of steps; it is not chosen: each would be a "
        "training of its own; `null`: 2, or a quarter of the averaging where that is shorter",
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

    @property
    def needs_lr(self) -> bool:
        """Whether cycles depend on the learning rate of averaging."""
        return self.high is None

    def lrs(self, lr: Any) -> tuple[float, float]:
        """The highest and the lowest learning rate, where that of averaging is `lr`.

        >>> FGE().lrs(0.5), FGE(low=0.1).lrs(0.5), FGE(low=0.1).lrs(0.05), FGE(high=1).lrs("auto")
        ((0.5, 0.005), (0.5, 0.1), (0.1, 0.1), (1.0, 0.01))
        """
        high = self.high or max(lr, self.low or 0.0)
        return high, self.low or high / 100


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
