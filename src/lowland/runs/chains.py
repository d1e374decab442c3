"""Artifacts of the posterior in a subspace: the subspace, chains in it, and a picture's plane."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.errors import ConfigError
from lowland.geometry import Curve, Subspace
from lowland.progress import Report
from lowland.records import Chain, SurfaceResult
from lowland.runs.records import RecordArtifact
from lowland.runs.setup import Setup
from lowland.runs.shape_sections import Inference
from lowland.runs.training import TrainedNetwork
from lowland.samplers import infer, posterior_plane
from lowland.samplers.base import MarkovChain
from lowland.samplers.registry import sampler_of
from lowland.trajectory import Trajectory

if TYPE_CHECKING:
    from lowland.runs.run import Run

KINDS = {"pca": "PCA", "random": "Random", "curve": "Curve", "hessian": "Hessian"}
SAMPLERS = {
    "ess": "ESS",
    "slice": "slice",
    "nuts": "NUTS",
    "sgld": "SGLD",
    "vi": "VI",
    "flow": "flow",
    "grid": "grid",
}
SHAPE = "subspace.safetensors"
_SHOWN = 2000  # training examples of a picture
_SIDE = 31  # points a side of it


class SpannedSubspace(Artifact):
    """The subspace of some settings.

    Args:
        basis: what it is spanned by or lies about: a trained trajectory or its iterates for "pca",
            a curve for "curve", weights or a trained trajectory, for their average, for others.
    """

    kind = "subspace"

    def __init__(self, run: Run, settings: Inference, basis: Artifact, *, seed: int) -> None:
        self.run = run
        self.inference = settings
        self.basis = basis
        self.seed = seed
        examples = settings.examples if settings.kind == "hessian" else None
        super().__init__(
            "subspace",
            [*run.evaluated(), basis],
            run.settings(kind=settings.kind, rank=settings.rank, seed=seed, examples=examples),
            title=f"{KINDS[settings.kind]} subspace",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Subspace:
        value, settings = inputs[self.basis.name], self.inference
        if isinstance(value, TrainedNetwork):
            value = value.iterates
        if settings.kind == "pca":
            return Subspace.pca(value, rank=settings.rank)
        if settings.kind == "curve":
            return Subspace.from_curve(value)
        center = value.average() if isinstance(value, Trajectory) else value
        if settings.kind == "random":
            return Subspace.random(center, rank=settings.rank, seed=self.seed)
        surface = self.run.setup.surface
        return Subspace.hessian(
            surface,
            center,
            rank=settings.rank,
            seed=self.seed,
            loader=surface.replayable(None, count=settings.examples),
            progress=progress,
        )

    def save(self, result: Subspace, folder: Path) -> None:
        result.save(folder / SHAPE)

    def load(self, folder: Path) -> Subspace:
        return Subspace.load(folder / SHAPE)

    def view(self) -> Mapping[str, str]:
        return {SHAPE: "shapes/subspace.safetensors"}


class SampledChain(RecordArtifact):
    """Chains in a subspace, on the training examples without augmentation."""

    kind = "chain"
    record = Chain

    def __init__(self, run: Run, subspace: SpannedSubspace) -> None:
        self.run = run
        self.subspace = subspace
        super().__init__(
            "chain",
            [*run.evaluated("validation"), subspace],
            run.settings(seed=subspace.seed, inference=subspace.inference.values_of(Inference)),
            file="chain.npz",
            title=f"sample: {posterior_title(subspace.inference)}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Chain:
        setup, settings = self.run.setup, self.subspace.inference
        with warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            chain = infer(
                inputs[self.subspace.name],
                setup.surface,
                sampler=settings.sampler,
                prior_scale=settings.prior_scale,
                temperature=settings.temperature,
                validation=setup.validation,
                chains=settings.chains,
                samples=settings.samples,
                warmup=settings.warmup,
                loader=setup.surface.replayable(None, count=settings.examples),
                seed=self.subspace.seed,
                options=setup.density_options(),
                checkpoint=checkpoint.file("chains.safetensors"),
                progress=progress,
            )
        # the sampler's warnings, for commands that print the chains
        chain.about["warnings"] = " ".join(dict.fromkeys(str(one.message) for one in messages))
        return _without_seconds(chain)

    def within(self, inputs: Inputs) -> Chain:
        """The chains, which know their subspace."""
        chain: Chain = inputs[self.name]
        return chain.within(inputs[self.subspace.name])

    def passes(self, inputs: Inputs) -> float:
        """Epochs of training: a log density is a forward pass, a third of what training takes."""
        share = self.run.setup.share_of(self.subspace.inference.examples)
        return share * evaluations(inputs[self.name]) / 3


class PosteriorPlane(RecordArtifact):
    """The log posterior over the first two coordinates of chains, with iterates projected on it.

    Args:
        file: of the record.
    """

    kind = "posterior-plane"
    record = SurfaceResult

    def __init__(self, run: Run, chain: SampledChain, *, file: str) -> None:
        self.run = run
        self.chain = chain
        subspace = chain.subspace
        self.trajectory = subspace.basis if subspace.inference.kind == "pca" else None
        super().__init__(
            "scan/posterior",
            [*run.evaluated(), chain, subspace, *([self.trajectory] if self.trajectory else [])],
            run.settings(seed=subspace.seed, inference={"side": _SIDE, "examples": _SHOWN}),
            file=file,
            title="plane of the posterior",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> SurfaceResult:
        chain = self.chain.within(inputs)
        paths: dict[str, Any] = {}
        if self.trajectory:
            value = inputs[self.trajectory.name]
            paths = {"SGD": value.iterates if isinstance(value, TrainedNetwork) else value}
        return posterior_plane(
            inputs[self.chain.subspace.name],
            self.run.setup.surface,
            chain,
            resolution=_SIDE,
            count=min(_SHOWN, self.chain.subspace.inference.examples or _SHOWN),
            paths=paths or None,
            store=checkpoint.file("plane.journal"),
            progress=progress,
        )


def posterior_title(settings: Inference) -> str:
    """What a posterior in a subspace is called, as the paper does."""
    return f"{KINDS[settings.kind]} + {SAMPLERS[settings.sampler]}"


def require(
    setup: Setup, settings: Inference, *, iterates: Any = None, curve: Curve | None = None
) -> None:
    """Raises what else would come after minutes of training, Lanczos' method or sampling.

    Raises:
        ConfigError: more directions than there are, too many for a grid. LowlandError: a package
            that is not installed.
    """
    sampler_of(settings.sampler).require_packages()
    if iterates is not None and settings.rank > len(iterates) - 1:
        raise ConfigError(
            f"rank: expected at most {len(iterates) - 1}, which {len(iterates)} iterates span, got "
            f"{settings.rank}; collect more of them (average.every, average.start)."
        )
    if curve is None and settings.rank > setup.layout.size:
        raise ConfigError(
            f"rank: expected at most {setup.layout.size} for a network of {setup.layout.size} "
            f"weights, got {settings.rank}."
        )
    if curve is not None and settings.sampler == "grid" and len(curve.anchors) - 1 > 3:
        raise ConfigError(
            f"--sampler grid: the curve spans {len(curve.anchors) - 1} dimensions, and a grid has "
            "at most 3; take another sampler, or a curve of fewer --bends."
        )


def missing_diagnostics(settings: Inference) -> str | None:
    """What is not known of the chains without an optional package; None: nothing."""
    markov = isinstance(sampler_of(settings.sampler), MarkovChain)
    if not markov or settings.chains < 2 or find_spec("arviz_stats") is not None:
        return None
    return (
        "whether the chains agree will not be known, as R-hat and effective sample sizes need "
        'arviz-stats: pip install "lowland[samplers]".'
    )


def _without_seconds(chain: Chain) -> Chain:
    """The chain without how long it took: two equal runs have equal files."""
    about = {key: value for key, value in chain.about.items() if key != "seconds"}
    if "tuning" in about:
        about["tuning"] = {k: v for k, v in about["tuning"].items() if k != "seconds"}
    return replace(chain, about=about)


def evaluations(chain: Chain) -> int:
    """Forward passes over the examples, with finding the temperature."""
    return chain.evaluations + int(chain.about.get("tuning", {}).get("evaluations", 0))
