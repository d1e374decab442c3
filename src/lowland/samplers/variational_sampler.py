"""Samplers that fit densities by maximising the ELBO, and draw from the last fit."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, ClassVar, TypedDict, Unpack

import torch
from torch import Tensor

from lowland.progress import reporting
from lowland.records import Chain
from lowland.samplers.base import Job, Sampler
from lowland.samplers.density import Density
from lowland.samplers.elbo import (
    ElboFit,
    ElboKeywords,
    ElboOptions,
    Family,
    draw_chain,
    evaluation_function,
    maximize_elbo,
    warn_if_not_converged,
)


class SavedFits(TypedDict):
    """Fits under way, in a checkpoint."""

    fits: list[dict[str, Any]]
    generator: Tensor
    seconds: float
    evaluations: int


class VariationalSampler(Sampler):
    """Fits families of densities, each beginning where the one before ended, and draws of the last.

    A subclass implements `family` and `about`. The base resumes a stopped run bit by bit.

    Args:
        options: see `Variational`.
    """

    samples: ClassVar[int] = 100  # independent draws, one log density each

    def __init__(self, **options: Unpack[ElboKeywords]) -> None:
        self.options = ElboOptions(**options)

    def settings(self) -> dict[str, Any]:
        return super().settings() | asdict(self.options)

    @abstractmethod
    def family(
        self, before: Sequence[Family], density: Density, job: Job, saved: dict[str, Any] | None
    ) -> Family | None:
        """The family to fit after those `before`, not yet learnt; None: there is none.

        In a resumed run `saved` has its `Family.constants`.
        """

    @abstractmethod
    def about(self, fits: Sequence[tuple[Family, ElboFit]]) -> dict[str, Any]:
        """Results of the fits for the chain's `about`, beside the last fit's curve."""

    def run(self, density: Density, job: Job) -> Chain:
        self.check(density)
        evaluate = evaluation_function(density, self.options.minibatch)
        kind = self.settings() | density.settings() | {"seed": job.seed}
        saved = job.load_state(kind, SavedFits)
        generator = job.generator()
        if saved is not None:
            with job.restoring():
                generator.set_state(saved["generator"])
            density.evaluations = saved["evaluations"]
        states: list[dict[str, Any]] = [] if saved is None else list(saved["fits"])
        previous = 0.0 if saved is None else saved["seconds"]
        clock = time.monotonic()

        def seconds() -> float:
            return float(previous + time.monotonic() - clock)

        fits: list[tuple[Family, ElboFit]] = []
        with reporting(job.progress, self.name) as report:
            while True:
                stage = len(fits)
                state = states[stage] if stage < len(states) else None
                with job.restoring() if state else nullcontext():
                    family = self.family([one for one, _ in fits], density, job, state)
                if family is None:
                    break

                def save(new: dict[str, Any], stage: int = stage) -> None:
                    states[stage : stage + 1] = [new]  # the state of a later fit stays
                    job.save(
                        kind,
                        {
                            "fits": states,
                            "generator": generator.get_state(),
                            "seconds": seconds(),
                            "evaluations": density.evaluations,
                        },
                    )

                fit = maximize_elbo(
                    family,
                    evaluate,
                    self.options,
                    generator,
                    saved=state,
                    save=save,
                    report=report,
                )
                fits.append((family, fit))
        family, fit = fits[-1]
        warn_if_not_converged(fit, self.options, self.name)
        results = {
            "elbo": torch.tensor(fit.curve, dtype=torch.float64),
            "steps": len(fit.curve),
            "converged": fit.converged,
        }
        return draw_chain(
            family,
            density,
            job,
            generator,
            name=self.name,
            evidence_draws=self.options.evidence_draws,
            about=self.about(fits) | results,
            seconds=seconds,
        )
