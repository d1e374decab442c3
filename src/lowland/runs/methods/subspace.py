"""Subspace inference (Izmailov et al. 2019): the posterior in a few dimensions, sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Inputs
from lowland.errors import ConfigError
from lowland.posteriors import Posterior
from lowland.runs import chains
from lowland.runs.methods.averaging import trials_of
from lowland.runs.methods.base import Method, Part, require_iterates
from lowland.runs.pictures import chain_pictures

if TYPE_CHECKING:
    from lowland.runs.run import Run


class SubspaceInference(Method):
    """Chains in the subspace of a trajectory."""

    name = "subspace"
    title = "Subspace inference"
    by_request = True  # it costs several times what the others do

    def label(self, run: Run) -> str:
        return chains.posterior_title(run.config.subspace)

    def check(self, run: Run) -> None:
        settings = run.config.subspace
        if settings.kind == "curve":
            raise ConfigError(
                "subspace.kind: a run has no curve yet; run `lowland connect`, then "
                "`lowland subspace --kind curve`."
            )
        if run.retrains:
            raise ConfigError(
                "methods: subspace needs validation examples where it samples, and average.retrain "
                "trains on them; leave one of them out."
            )
        chains.require(run.setup, settings)
        least = settings.rank + 1 if settings.kind == "pca" else 1
        collection = f"{run.collection()}, rank {settings.rank}"
        require_iterates(run, self.label(run), run.budget.stored(), least, collection)

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.averaged(0)), *trials_of(run), Part(run.chain())]

    def needs(self, run: Run) -> Sequence[Artifact]:
        return [run.chain(), run.subspace()]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        post: Posterior = run.chain().within(inputs).posterior()
        return post

    def pictures(self, run: Run) -> Sequence[Artifact]:
        several = min(run.config.subspace.rank, run.setup.layout.size) > 1
        return chain_pictures(run.chain(), run.posterior_plane() if several else None)

    def notes(self, run: Run, inputs: Inputs) -> Sequence[str]:
        message = inputs[run.chain().name].about.get("warnings")
        return [f"{self.label(run)}: {message}"] if message else []
