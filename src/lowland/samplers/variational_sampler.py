"""Samplers that fit densities by maximising the ELBO, and draw from the last fit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, ClassVar, Unpack

import torch

from lowland.progress import reporting
from lowland.records import Chain
from lowland.samplers.base import Sampler
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
from lowland.samplers.job import Job, Run, SavedRun


class SavedFits(SavedRun):
    """Fits under way, in a checkpoint."""

    fits: list[dict[str, Any]]


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
        run = Run(density, job, self.settings() | {"seed": job.seed}, form=SavedFits)
        states: list[dict[str, Any]] = [] if run.saved is None else list(run.saved["fits"])
        fits: list[tuple[Family, ElboFit]] = []
        with reporting(job.progress, self.name) as report:
            while True:
                stage = len(fits)
                saved = states[stage] if stage < len(states) else None
                with run.restoring() if saved else nullcontext():
                    family = self.family([one for one, _ in fits], density, job, saved)
                if family is None:
                    break

                def state(new: dict[str, Any], stage: int = stage) -> dict[str, Any]:
                    states[stage : stage + 1] = [new]  # the state of a later fit stays
                    return {"fits": states}

                fit = maximize_elbo(
                    family, evaluate, self.options, run, saved=saved, state=state, report=report
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
            run,
            evidence_draws=self.options.evidence_draws,
            about=self.about(fits) | results,
        )
