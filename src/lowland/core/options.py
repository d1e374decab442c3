"""The options of evaluation, as one value."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypedDict, Unpack

from lowland import checks
from lowland.core.threads import MAX_THREADS, using_threads
from lowland.errors import ConfigError

STRATEGIES = ("points", "batches", "vmap")
BATCHNORM = ("refresh", "frozen")


class EvalKeywords(TypedDict, total=False):
    """The keyword arguments that stand for `EvalOptions`; None: as in `options`, or as on the
    surface."""

    options: EvalOptions | None
    strategy: str | None
    chunk: int | None
    batchnorm: str | None
    count: int | None
    threads: int | None


@dataclass(frozen=True)
class Plan:
    """A strategy, how many weight vectors go together, and on how many threads.

    `seconds`: of one weight vector and batch, where it was timed.
    """

    strategy: str
    chunk: int
    threads: int
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES or self.chunk < 1:  # files keep plans
            raise ConfigError(
                f"plan: expected one of {', '.join(STRATEGIES)} and a chunk of at least 1, got "
                f"{self.strategy!r} and {self.chunk}."
            )

    def threads_in_use(self) -> AbstractContextManager[None]:
        """Uses the plan's number of threads while the context is open."""
        return using_threads(self.threads)


@dataclass(frozen=True)
class EvalOptions:
    r"""How weights are evaluated over examples: the plan of execution, BatchNorm, the examples.

    `LossSurface(..., options=EvalOptions(...))` is the default for all that is evaluated on a
    surface. A call overrides it: by `options=`, or by keyword arguments with the names of the
    fields, of which those that are None change nothing.

    With `strategy`, `chunk` and `threads` given, the plan is explicit: nothing is timed, and each
    process computes the same bits from the same inputs on the same kind of machine.

    Attributes:
        strategy: "points": one weight vector after the other, over data in memory. "batches": each
            batch of the data for a chunk of weight vectors. "vmap": a chunk of weight vectors as
            one batched computation. None: the fastest, by timing each on one batch.
        chunk: how many weight vectors go together. None: 1 for "points", else as many as fit in a
            tenth of the free memory, or what is fastest.
        batchnorm: "refresh": the statistics of BatchNorm layers are estimated for each weight
            vector, \(\mu = E[x], \sigma^2 = \mathrm{Var}[x]\) of each layer's input over the
            surface's `bn_rows` examples. "frozen": those that came with the weights, or else the
            model's.
        count: how many examples of the loader to read; None: all.
        threads: how many CPU threads torch uses meanwhile; None: as many as it uses now, or one
            where that is faster.

    Raises:
        ConfigError: an unknown strategy or BatchNorm policy, numbers below 1.

    >>> options = EvalOptions(batchnorm="frozen")
    >>> options.override(strategy="vmap", chunk=16)
    EvalOptions(strategy='vmap', chunk=16, batchnorm='frozen', count=None, threads=None)
    >>> print(options.plan)  # chosen by timing
    None
    >>> options.with_plan(Plan("vmap", 16, threads=1)).plan
    Plan(strategy='vmap', chunk=16, threads=1, seconds=None)
    """

    strategy: str | None = None
    chunk: int | None = None
    batchnorm: str = "refresh"
    count: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        checks.choice("strategy", self.strategy, (None, *STRATEGIES))
        checks.choice("batchnorm", self.batchnorm, BATCHNORM)
        checks.fields(self, checks.whole, "chunk", "count", least=1)
        checks.fields(self, checks.whole, "threads", least=1, most=MAX_THREADS)

    def override(self, **keywords: Unpack[EvalKeywords]) -> EvalOptions:
        """The options of a call: `options=` in place of these, and each keyword that is not None
        in place of the field of its name."""
        base = keywords.pop("options", None) or self
        if not isinstance(base, EvalOptions):
            raise ConfigError(f"options: expected EvalOptions, got {type(base).__name__}.")
        changes = {name: value for name, value in keywords.items() if value is not None}
        return replace(base, **changes) if changes else base  # type: ignore[arg-type]

    @property
    def plan(self) -> Plan | None:
        """The explicit plan; None where some of it is left open."""
        chunk = self.chunk or (1 if self.strategy == "points" else None)
        if self.strategy is None or chunk is None or self.threads is None:
            return None
        return Plan(self.strategy, chunk, self.threads)

    def with_plan(self, plan: Plan) -> EvalOptions:
        """The same options by an explicit plan, such as one that was timed or recorded before."""
        return replace(self, strategy=plan.strategy, chunk=plan.chunk, threads=plan.threads)
