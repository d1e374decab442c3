"""The contract: a sampler turns a log density on R^k into a `Chain`.

There are two kinds. A sampler that draws independently, or on a grid, implements `run`. A
`MarkovChain` implements `begin` and `advance` for many chains at once; the base counts, warms up,
thins, reports progress, and resumes a stopped run bit by bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from lowland.errors import ConfigError, LowlandError
from lowland.progress import reporting
from lowland.records import Chain
from lowland.samplers.density import Density
from lowland.samplers.job import Job, Run, SavedRun
from lowland.warn import warn

RHAT = 1.05  # above it chains disagree
_FEW = 10  # draws of a chain, too few for R-hat


class SavedChains(SavedRun):
    """Markov chains under way, in a checkpoint."""

    state: dict[str, Tensor]  # the first dimension of each is the chain
    counts: Tensor
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
        schedule = {"warmup": warmup, "thin": job.thin, "seed": job.seed}
        settings = self.settings() | schedule | {"chains": job.chains}
        run = Run(density, job, settings, form=SavedChains)
        saved, self.generator = run.saved, run.generator
        needed = warmup + job.samples * job.thin  # transitions of each chain
        # a longer run that was stopped keeps its draws, though this call returns fewer
        capacity = job.samples if saved is None else max([job.samples, *saved["coords"].shape[1:2]])
        coords = torch.empty(job.chains, capacity, density.k, dtype=torch.float64)
        log_density = torch.empty(job.chains, capacity, dtype=torch.float64)
        counts = torch.zeros(job.chains, dtype=torch.int64)
        if saved is None:
            z = job.start_points(density, self.generator)
            self.state = self.begin(density, z, density.require_finite(z))
        else:
            with run.restoring():
                done = saved["coords"].shape[1]
                coords[:, :done], log_density[:, :done] = saved["coords"], saved["log_density"]
                counts.copy_(saved["counts"])
            self.state = saved["state"]

        def state() -> dict[str, Any]:
            done = int(((counts - warmup) // job.thin).clamp(0, capacity).max())
            return {
                "state": self.state,
                "counts": counts,
                "coords": coords[:, :done].contiguous(),
                "log_density": log_density[:, :done].contiguous(),
            }

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
                run.save_if_due(state)
        run.save(state())
        chain = run.chain(
            coords[:, : job.samples].contiguous(),
            log_density[:, : job.samples].contiguous(),
            acceptance=self.acceptance(),
            about=schedule | self.about(),
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
