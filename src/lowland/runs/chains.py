"""Artifacts of the posterior in a subspace: the subspace, chains in it, and a picture's plane."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.core import Point
from lowland.errors import ConfigError
from lowland.evaluate.engine import rows_for
from lowland.geometry import Curve, Subspace
from lowland.geometry.curvature import need_scipy
from lowland.progress import Progress, Report
from lowland.records import Chain, SurfaceResult
from lowland.runs.config import Inference
from lowland.runs.records import RecordArtifact
from lowland.runs.setup import Setup
from lowland.samplers import infer, posterior_plane
from lowland.samplers.base import MarkovChain
from lowland.samplers.registry import sampler_of

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


@dataclass(frozen=True)
class SpanSettings:
    """What a subspace is spanned by."""

    kind: str
    rank: int
    seed: int
    rows: int | None
    evaluation: Mapping[str, Any]


@dataclass(frozen=True)
class ChainSettings:
    """What changes chains, but for their subspace."""

    seed: int
    inference: Mapping[str, Any]
    evaluation: Mapping[str, Any]


class SpannedSubspace(Artifact):
    """The subspace of a run's configuration, about the average of its first SWA trajectory."""

    kind = "subspace"

    def __init__(self, run: Run) -> None:
        self.run = run
        self.trajectory = run.averaged(0)
        settings, config = run.config.subspace, run.config
        rows = settings.rows if settings.kind == "hessian" else None
        super().__init__(
            "subspace",
            [*run.given("model", "task"), *run.statistics(), self.trajectory],
            SpanSettings(settings.kind, settings.rank, config.seed, rows, run.evaluation()),
        )

    @property
    def title(self) -> str:
        return f"{KINDS[self.run.config.subspace.kind]} subspace"

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Subspace:
        iterates = inputs[self.trajectory.name].iterates
        config = self.run.config
        return span(
            self.run.setup,
            config.subspace,
            iterates.average(),
            iterates=iterates,
            seed=config.seed,
            progress=progress,
        )

    def save(self, result: Subspace, folder: Path) -> None:
        result.save(folder / SHAPE)

    def load(self, folder: Path) -> Subspace:
        return Subspace.load(folder / SHAPE)

    def view(self) -> Mapping[str, str]:
        return {SHAPE: "shapes/subspace.safetensors"}


class SampledChain(RecordArtifact):
    """Chains in the subspace of a run."""

    kind = "chain"
    record = Chain

    def __init__(self, run: Run) -> None:
        self.run = run
        self.subspace = run.subspace()
        super().__init__(
            "chain",
            [
                *run.given("model", "task", "data/validation"),
                *run.statistics(),
                self.subspace,
            ],
            ChainSettings(run.config.seed, run.config.subspace.model_dump(), run.evaluation()),
            file="chain.npz",
        )

    @property
    def title(self) -> str:
        return f"sample: {posterior_title(self.run.config.subspace)}"

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Chain:
        state = checkpoint.file("chains.safetensors")
        assert state is not None
        chain = sample(
            self.run.setup,
            inputs[self.subspace.name],
            self.run.config.subspace,
            seed=self.run.config.seed,
            checkpoint=state,
            progress=progress,
        )
        return chain_without_seconds(chain)

    def passes(self, inputs: Inputs) -> float:
        """Epochs of training: a log density is a forward pass, a third of what training takes."""
        share = self.run.setup.share_of(self.run.config.subspace.rows)
        return share * evaluations(inputs[self.name]) / 3


class PosteriorPlane(RecordArtifact):
    """The log posterior over the first two coordinates of the chains."""

    kind = "posterior-plane"
    record = SurfaceResult

    def __init__(self, run: Run) -> None:
        self.run = run
        self.chain = run.chain()
        self.trajectory = run.averaged(0) if run.config.subspace.kind == "pca" else None
        inputs = [*run.given("model", "task"), *run.statistics(), self.chain, self.chain.subspace]
        super().__init__(
            "scan/posterior",
            [*inputs, *([self.trajectory] if self.trajectory else [])],
            ChainSettings(run.config.seed, {"side": _SIDE, "rows": _SHOWN}, run.evaluation()),
            file="posterior-plane.npz",
        )

    @property
    def title(self) -> str:
        return "plane of the posterior"

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> SurfaceResult:
        return plane(
            self.run.setup,
            inputs[self.chain.name].within(inputs[self.chain.subspace.name]),
            self.run.config.subspace,
            journal=checkpoint.file("plane.journal"),
            iterates=inputs[self.trajectory.name].iterates if self.trajectory else None,
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
    if settings.kind == "hessian":
        need_scipy()
    if iterates is not None and settings.rank > len(iterates) - 1:
        raise ConfigError(
            f"rank: expected at most {len(iterates) - 1}, which {len(iterates)} iterates span, got "
            f"{settings.rank}; collect more of them (average.every, average.start)."
        )
    most = setup.layout.size - (settings.kind == "hessian")
    if curve is None and settings.rank > most:
        raise ConfigError(
            f"rank: expected at most {most} for a network of {setup.layout.size} weights, got "
            f"{settings.rank}."
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


def span(
    setup: Setup,
    settings: Inference,
    center: Tensor | Point | None = None,
    *,
    iterates: Any = None,
    curve: Curve | None = None,
    seed: int,
    progress: Progress = False,
) -> Subspace:
    """The subspace of the settings.

    `center`: what "random" and "hessian" lie about. `iterates`: those of "pca". `curve`: that of
    "curve".
    """
    if settings.kind == "pca":
        return Subspace.pca(iterates, rank=settings.rank)
    if settings.kind == "curve":
        assert curve is not None
        return Subspace.from_curve(curve)
    assert center is not None
    if settings.kind == "random":
        return Subspace.random(center, rank=settings.rank, seed=seed)
    return Subspace.hessian(
        setup.surface,
        center,
        rank=settings.rank,
        seed=seed,
        loader=rows_for(setup.surface, None, count=settings.rows),
        progress=progress,
    )


def sample(
    setup: Setup,
    sub: Subspace,
    settings: Inference,
    *,
    seed: int,
    checkpoint: Path,
    progress: Progress = False,
) -> Chain:
    """Chains in a subspace, on the training examples without augmentation.

    What the sampler warned of stands in `about["told"]`, for whoever shows them.
    """
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        chain = infer(
            sub,
            setup.surface,
            sampler=settings.sampler,
            prior_scale=settings.prior_scale,
            temperature=settings.temperature,
            validation=setup.validation,
            chains=settings.chains,
            samples=settings.samples,
            warmup=settings.warmup,
            loader=rows_for(setup.surface, None, count=settings.rows),
            seed=seed,
            checkpoint=checkpoint,
            progress=progress,
        )
    chain.about["told"] = " ".join(dict.fromkeys(str(one.message) for one in messages))
    return chain


def chain_without_seconds(chain: Chain) -> Chain:
    """The chain without how long it took: two equal runs have equal files."""
    about = {key: value for key, value in chain.about.items() if key != "seconds"}
    if "tuning" in about:
        about["tuning"] = {k: v for k, v in about["tuning"].items() if k != "seconds"}
    return replace(chain, about=about)


def plane(
    setup: Setup,
    chain: Chain,
    settings: Inference,
    *,
    journal: Path | None,
    iterates: Any = None,
    progress: Progress = False,
) -> SurfaceResult:
    """The log posterior over the first two coordinates of a chain that knows its subspace.

    `journal`: a file that a stopped scan goes on from.
    """
    sub = chain.posterior().shape
    assert isinstance(sub, Subspace)
    return posterior_plane(
        sub,
        setup.surface,
        chain,
        resolution=_SIDE,
        count=min(_SHOWN, settings.rows or _SHOWN),
        paths=None if iterates is None else {"SGD": iterates},
        store=journal,
        progress=progress,
    )


def seconds(chain: Chain) -> float:
    """What sampling took, with finding the temperature."""
    return float(chain.about["seconds"]) + float(chain.about.get("tuning", {}).get("seconds", 0))


def evaluations(chain: Chain) -> int:
    """Forward passes over the examples, with finding the temperature."""
    return chain.evaluations + int(chain.about.get("tuning", {}).get("evaluations", 0))
