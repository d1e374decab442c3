"""Samplers that fit a density to the posterior and draw of it: one ascent of the ELBO, or more."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor

from lowland import checks
from lowland.progress import reporting
from lowland.records import Chain
from lowland.samplers.base import Job, Sampler
from lowland.samplers.density import Density
from lowland.samplers.elbo import (
    Ascent,
    Climb,
    Family,
    chain_of,
    climb,
    need_minibatches,
    warn_unless_converged,
)


class Saved(TypedDict):
    """Fits under way, in a file."""

    climbs: list[dict[str, Any]]
    generator: Tensor
    seconds: float
    evaluations: int


class Fitted(Sampler):
    """Fits families of densities, each beginning where the one before ended, and draws of the last.

    A subclass writes `family` and `about`. Being stopped and continued bit by bit follow.

    Args: see `Variational`.
    """

    samples: ClassVar[int] = 100  # independent, and a log density each

    def __init__(
        self,
        *,
        draws: int,
        steps: int,
        rate: float,
        falling: bool,
        tolerance: float,
        minibatch: bool,
        whiten: bool,
        evidence_draws: int,
    ) -> None:
        ascent = Ascent(draws, steps, rate, falling, tolerance)  # checks
        self.draws, self.steps, self.rate = ascent.draws, ascent.steps, ascent.rate
        self.falling, self.tolerance = falling, ascent.tolerance
        self.minibatch, self.whiten = minibatch, whiten
        self.evidence_draws = checks.whole("evidence_draws", evidence_draws, least=2)

    @property
    def ascent(self) -> Ascent:
        """How the ELBO is climbed."""
        return Ascent(self.draws, self.steps, self.rate, self.falling, self.tolerance)

    @abstractmethod
    def family(
        self, before: Sequence[Family], density: Density, job: Job, begun: dict[str, Any] | None
    ) -> Family | None:
        """What is fitted after these, before it is learnt; None: nothing is.

        `begun` has what its `Family.begun` gave, in a run that was stopped.
        """

    @abstractmethod
    def about(self, fitted: Sequence[tuple[Family, Climb]]) -> dict[str, Any]:
        """What there is to tell of the fits, the last climb's curve apart."""

    def run(self, density: Density, job: Job) -> Chain:
        self.check(density)
        evaluate = need_minibatches(density, self.minibatch)
        kind = self.settings() | density.settings() | {"seed": job.seed}
        saved = job.resumed(kind, Saved)
        generator = job.generator()
        if saved is not None:
            with job.restoring():
                generator.set_state(saved["generator"])
            density.evaluations = saved["evaluations"]
        climbs: list[dict[str, Any]] = [] if saved is None else list(saved["climbs"])
        before = 0.0 if saved is None else saved["seconds"]
        clock = time.monotonic()

        def seconds() -> float:
            return float(before + time.monotonic() - clock)

        fitted: list[tuple[Family, Climb]] = []
        with reporting(job.progress, self.name) as report:
            while True:
                stage = len(fitted)
                state = climbs[stage] if stage < len(climbs) else None
                with job.restoring() if state else nullcontext():
                    family = self.family([one for one, _ in fitted], density, job, state)
                if family is None:
                    break

                def keep(now: dict[str, Any], stage: int = stage) -> None:
                    # the state of a later fit, where there is one, stays
                    climbs[stage : stage + 1] = [now]
                    clocks = {"seconds": seconds(), "evaluations": density.evaluations}
                    now = {"climbs": climbs, "generator": generator.get_state()}
                    job.keep(kind, now | clocks)

                ended = climb(
                    family,
                    evaluate,
                    self.ascent,
                    generator,
                    saved=state,
                    keep=keep,
                    report=report,
                )
                fitted.append((family, ended))
        last, ended = fitted[-1]
        warn_unless_converged(ended, self.ascent, self.name)
        told = {
            "elbo": torch.tensor(ended.curve, dtype=torch.float64),
            "steps": len(ended.curve),
            "converged": ended.converged,
        }
        return chain_of(
            last,
            density,
            job,
            generator,
            name=self.name,
            evidence_draws=self.evidence_draws,
            about=self.about(fitted) | told,
            seconds=seconds,
        )
