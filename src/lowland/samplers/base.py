"""The contract: a sampler turns a log density on R^k into a `Chain`.

There are two kinds. A sampler that draws independently, or on a grid, implements `run`. A
`MarkovChain` implements `begin` and `advance` for many chains at once; the base counts, warms up,
thins, reports progress, and resumes a stopped run bit by bit.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor

from lowland import checks
from lowland.artifacts import Checkpoint
from lowland.core.seeds import stream
from lowland.errors import ConfigError, LowlandError
from lowland.files import PathLike
from lowland.progress import Progress, reporting
from lowland.records import Chain
from lowland.samplers.density import Density
from lowland.schema import require
from lowland.warn import warn

KIND = "chains under way 3"
RHAT = 1.05  # above it chains disagree
_FEW = 10  # draws of a chain, too few for R-hat
EVERY = 10.0  # seconds between checkpoints, which a stopped run may lose


@dataclass
class Job:
    """What a sampler runs: how many chains and draws, from where, with which seed and checkpoint.

    Args:
        chains: number of chains. samples: draws of each chain after warm-up.
        warmup: transitions that are discarded; None: the sampler's default.
        thin: keeps one transition in so many.
        start: (chains, k) points; None: draws from the prior. seed: of everything random.
        checkpoint: a file from which a stopped run goes on. settings: what must be equal for a run
            to go on, such as a checksum of the data. memory: further state of a run, with
            `state_dict` and `load_state_dict`. progress: True for a bar, or a callable.
    """

    chains: int = 16
    samples: int = 1000
    warmup: int | None = None
    thin: int = 1
    start: Tensor | None = None
    seed: int = 0
    checkpoint: Checkpoint | PathLike | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    memory: Any = None
    progress: Progress = False

    def __post_init__(self) -> None:
        for name in ("chains", "samples", "thin"):
            setattr(self, name, checks.whole(name, getattr(self, name), least=1))
        if self.warmup is not None:
            self.warmup = checks.whole("warmup", self.warmup, least=0)
        self.seed = checks.seed(self.seed)
        if self.start is not None:
            # of a subspace on another device, or from an optimiser
            self.start = torch.as_tensor(self.start).detach().to("cpu", torch.float64)

    def generator(self) -> torch.Generator:
        """The source of everything random."""
        return stream("chains", self.seed)

    def start_points(self, density: Density, generator: torch.Generator) -> Tensor:
        """(chains, k) points: `start`, or draws from the prior. It is wider than the posterior, so
        that R-hat detects chains that do not meet."""
        if self.start is None:
            z = torch.randn(self.chains, density.k, generator=generator, dtype=torch.float64)
            return z * (density.prior_scale or 1.0)
        start = self.start.expand(self.chains, -1) if self.start.ndim == 1 else self.start
        if start.shape != (self.chains, density.k):
            raise ConfigError(
                f"start: expected ({self.chains}, {density.k}) or ({density.k},), got "
                f"{tuple(start.shape)}."
            )
        return start.clone()

    def load_state(self, kind: dict[str, Any], form: Any) -> dict[str, Any] | None:
        """The state of a stopped run; None where there is none.

        Args:
            form: the `TypedDict` of the sampler's own part, see `lowland.schema`.

        Raises:
            ConfigError: a checkpoint of other settings. StoreError: a damaged or foreign file.
        """
        if self.checkpoint is None:
            return None
        checkpoint = Checkpoint.of(self.checkpoint)
        state = checkpoint.load(kind=KIND, same=self._same_settings(kind), form=dict[str, Any])
        if state is None:
            return None
        memory = state.pop("memory", None)
        require(state, form, source=checkpoint.path)
        if self.memory is not None and memory is not None:
            with checkpoint.restoring(KIND):
                self.memory.load_state_dict(memory)
        return dict(state)

    def _same_settings(self, kind: dict[str, Any]) -> dict[str, Any]:
        """All that must be the same for a run to go on; start points by their checksum."""
        digest = None
        if self.start is not None:
            digest = hashlib.sha256(self.start.contiguous().numpy().tobytes()).hexdigest()[:16]
        return self.settings | kind | {"start": digest}

    def save(self, kind: dict[str, Any], state: dict[str, Any]) -> None:
        """Replaces the saved state atomically."""
        if self.checkpoint is not None:
            memory = None if self.memory is None else self.memory.state_dict()
            checkpoint = Checkpoint.of(self.checkpoint)
            checkpoint.save(state | {"memory": memory}, kind=KIND, same=self._same_settings(kind))

    def restoring(self) -> AbstractContextManager[None]:
        """Turns errors while a state is restored into a `StoreError`."""
        return Checkpoint.of(self.checkpoint).restoring(KIND)


class SavedChains(TypedDict):
    """Markov chains under way, in a checkpoint."""

    generator: Tensor
    state: dict[str, Tensor]  # the first dimension of each is the chain
    counts: Tensor
    seconds: float
    evaluations: int
    coords: Tensor
    log_density: Tensor


class Sampler(ABC):
    """Draws from a log density. The options of a sampler are arguments of its class.

    Attributes:
        name: the name for `ll.infer`. gaussian_prior: whether it needs a Gaussian prior.
        samples: default number of draws of each chain.
    """

    name: ClassVar[str]
    gaussian_prior: ClassVar[bool] = False
    samples: ClassVar[int] = 1000

    @abstractmethod
    def run(self, density: Density, job: Job) -> Chain:
        """Samples; see `Job`."""

    def settings(self) -> dict[str, Any]:
        """The options that must be equal for a stopped run to go on."""
        plain = (int, float, str, bool, type(None))
        own = {k: v for k, v in sorted(vars(self).items()) if isinstance(v, plain)}
        return {"sampler": self.name} | own

    def require_packages(self) -> None:  # noqa: B027 - most need none
        """Raises `LowlandError` where a package that the sampler needs is not installed."""

    def check(self, density: Density) -> None:
        """Raises `ConfigError` where the sampler cannot sample this density."""
        self.require_packages()
        if self.gaussian_prior and density.prior_scale is None:
            raise ConfigError(
                f"{self.name} needs a Gaussian prior; give prior_scale=, or take 'slice' or 'nuts'."
            )


class MarkovChain(Sampler):
    """Many Markov chains at once, in step or not.

    A subclass keeps its chains' state in `self.state`, tensors whose first dimension is the chain,
    and takes random numbers from `self.generator` alone: a stopped run needs nothing else to go on.

    Attributes:
        warmup: default number of transitions that are discarded.
    """

    warmup: ClassVar[int] = 200

    state: dict[str, Tensor]
    generator: torch.Generator

    @abstractmethod
    def begin(self, density: Density, z: Tensor, log_density: Tensor) -> dict[str, Tensor]:
        """The first state, at points z (chains, k); it includes "z" and "log_density"."""

    @abstractmethod
    def advance(self, density: Density, chains: Tensor, warming: Tensor) -> Tensor:
        """One batched evaluation for the chains with these indices (m,): updates `self.state`.

        `warming` (m,): which of them are in warm-up and may adapt. Returns (m,) booleans: which
        completed a transition; "z" and "log_density" of `self.state` are then their new points.
        """

    def about(self) -> dict[str, Any]:
        """Diagnostics of the run, such as step sizes."""
        return {}

    def acceptance(self) -> Tensor | None:
        """(chains,): the share of proposals that were accepted."""
        return None

    def run(self, density: Density, job: Job) -> Chain:
        self.check(density)
        warmup = self.warmup if job.warmup is None else job.warmup
        kind = self.settings() | density.settings()
        kind |= {
            "chains": job.chains,
            "warmup": warmup,
            "thin": job.thin,
            "seed": job.seed,
        }
        needed = warmup + job.samples * job.thin  # transitions of each chain
        saved = job.load_state(kind, SavedChains)
        self.generator = job.generator()
        # a longer run that was stopped keeps its draws, though this call returns fewer
        capacity = job.samples if saved is None else max([job.samples, *saved["coords"].shape[1:2]])
        coords = torch.empty(job.chains, capacity, density.k, dtype=torch.float64)
        log_density = torch.empty(job.chains, capacity, dtype=torch.float64)
        if saved is None:
            z = job.start_points(density, self.generator)
            self.state = self.begin(density, z, density.require_finite(z))
            counts = torch.zeros(job.chains, dtype=torch.int64)
            before = 0.0
        else:
            with job.restoring():
                self.generator.set_state(saved["generator"])
                done = saved["coords"].shape[1]
                coords[:, :done], log_density[:, :done] = saved["coords"], saved["log_density"]
                counts = torch.zeros(job.chains, dtype=torch.int64).copy_(saved["counts"])
            self.state, before = saved["state"], saved["seconds"]
            density.evaluations = saved["evaluations"]
        started = last_save = time.monotonic()

        def save() -> None:
            done = int(((counts - warmup) // job.thin).clamp(0, capacity).max())
            job.save(
                kind,
                {
                    "generator": self.generator.get_state(),
                    "state": self.state,
                    "counts": counts,
                    "seconds": before + time.monotonic() - started,
                    "evaluations": density.evaluations,
                    "coords": coords[:, :done].contiguous(),
                    "log_density": log_density[:, :done].contiguous(),
                },
            )

        with reporting(job.progress, self.name) as report:
            total = needed * job.chains
            report(int(counts.clamp(max=needed).sum()), total)
            # NumPy's views of the same memory: a call of it costs a third of one of torch here
            times, places, values = counts.numpy(), coords.numpy(), log_density.numpy()
            while len(active := (times < needed).nonzero()[0]):
                warming = torch.from_numpy(times[active] < warmup)
                completed = active[self.advance(density, torch.from_numpy(active), warming).numpy()]
                if len(completed):
                    times[completed] += 1
                    after = times[completed] - warmup
                    due = (after > 0) & (after % job.thin == 0)
                    rows, columns = completed[due], after[due] // job.thin - 1
                    places[rows, columns] = self.state["z"].numpy()[rows]
                    values[rows, columns] = self.state["log_density"].numpy()[rows]
                    report(int(times.sum()), total)
                # between evaluations only: an interrupted one leaves no trace
                if time.monotonic() - last_save > EVERY:
                    save()
                    last_save = time.monotonic()
        save()
        chain = Chain(
            coords=coords[:, : job.samples].contiguous(),
            log_density=log_density[:, : job.samples].contiguous(),
            sampler=self.name,
            temperature=density.temperature,
            prior_scale=density.prior_scale,
            evaluations=density.evaluations,
            acceptance=self.acceptance(),
            about={
                "warmup": warmup,
                "thin": job.thin,
                "seed": job.seed,
                "seconds": before + time.monotonic() - started,
            }
            | self.about(),
        )
        warn_if_chains_disagree(chain)
        return chain


def warn_if_chains_disagree(chain: Chain) -> None:
    """Warns where R-hat is above `RHAT`."""
    if chain.coords.shape[0] < 2 or chain.coords.shape[1] < _FEW:
        return
    try:
        worst = float(chain.rhat.max())
    except LowlandError as error:  # a missing package is no reason to lose the draws
        warn(f"R-hat of the chains was not computed: {error}")
        return
    if not worst <= RHAT:  # NaN too
        warn(
            f"the chains disagree: R-hat is {worst:.3f} (at most {RHAT} is fine), with "
            f"{float(chain.ess.min()):.0f} effective samples; look at chain.plot(), take more "
            "samples or warm-up, or a higher temperature or smaller prior_scale.",
        )
