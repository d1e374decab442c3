"""What a sampler runs, and how a run keeps its state, its random numbers and its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from torch import Tensor

from lowland import checks
from lowland.artifacts import Checkpoint
from lowland.core.seeds import stream
from lowland.errors import ConfigError
from lowland.files import PathLike
from lowland.progress import Progress
from lowland.records import Chain
from lowland.samplers.density import Density
from lowland.tensor_files import tensor_checksum

KIND = "chains under way 4"
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
            to go on, such as a checksum of the data. progress: True for a bar, or a callable.
    """

    chains: int = 16
    samples: int = 1000
    warmup: int | None = None
    thin: int = 1
    start: Tensor | None = None
    seed: int = 0
    checkpoint: Checkpoint | PathLike | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    progress: Progress = False

    def __post_init__(self) -> None:
        checks.fields(self, checks.whole, "chains", "samples", "thin", least=1)
        checks.fields(self, checks.whole, "warmup", least=0)
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


class SavedRun(TypedDict):
    """A run in a checkpoint; each sampler adds its own state."""

    generator: Tensor
    seconds: float
    evaluations: int
    memory: Any


class Run:
    """A job under way. If a checkpoint has a state of the same run, it begins where that ended:
    with its seconds, its generator and its count of evaluations.

    Args:
        settings: of the sampler, which must be equal for a run to go on, as must be those of the
            density and the job. form: of the saved state, a `SavedRun`.

    Attributes:
        saved: the sampler's own state of a stopped run; None where there is none.
        generator: the source of everything random.

    Raises:
        ConfigError: a checkpoint of other settings. StoreError: a damaged or foreign file.
    """

    def __init__(
        self, density: Density, job: Job, settings: Mapping[str, Any], *, form: Any
    ) -> None:
        self.density, self.job, self.sampler = density, job, settings["sampler"]
        self.checkpoint = Checkpoint.of(job.checkpoint)
        start = None if job.start is None else tensor_checksum(job.start)
        self._same = {**job.settings, **settings, **density.settings(), "start": start}
        self.generator = job.generator()
        self._before = 0.0
        self.saved = self.checkpoint.load(kind=KIND, same=self._same, form=form)
        if self.saved is not None:
            with self.restoring():
                self.generator.set_state(self.saved["generator"])
                if density.memory is not None:
                    density.memory.load_state_dict(self.saved["memory"])
            self._before, density.evaluations = self.saved["seconds"], self.saved["evaluations"]
        self._began = self._saved_at = time.monotonic()

    def restoring(self) -> AbstractContextManager[None]:
        """Turns errors while a state is restored into a `StoreError`."""
        return self.checkpoint.restoring(KIND)

    def seconds(self) -> float:
        """Since the run began, without the time in which it was stopped."""
        return self._before + time.monotonic() - self._began

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the saved state atomically."""
        if self.checkpoint.path is not None:
            common: SavedRun = {
                "generator": self.generator.get_state(),
                "seconds": self.seconds(),
                "evaluations": self.density.evaluations,
                "memory": self.density.memory and self.density.memory.state_dict(),
            }
            self.checkpoint.save({**state, **common}, kind=KIND, same=self._same)

    def save_if_due(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Saves where the last time is `EVERY` seconds ago. To be called between evaluations: an
        interrupted one leaves no trace."""
        if time.monotonic() - self._saved_at > EVERY:
            self.save(state())
            self._saved_at = time.monotonic()

    def chain(self, coords: Tensor, log_density: Tensor, **fields: Any) -> Chain:
        """The record of the run, with its seconds in `about`."""
        about = {**fields.pop("about"), "seconds": self.seconds()}
        return Chain(
            coords,
            log_density,
            sampler=self.sampler,
            temperature=self.density.temperature,
            prior_scale=self.density.prior_scale,
            evaluations=self.density.evaluations,
            about=about,
            **fields,
        )
