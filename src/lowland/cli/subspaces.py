"""The folder of posteriors in subspaces of finished runs, and how they are sampled."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowland import plots
from lowland.cli.config import Inference
from lowland.cli.folder import RunFolder
from lowland.cli.setup import Setup
from lowland.cli.stage import Stage, names_in
from lowland.core import Point
from lowland.errors import ConfigError, StoreError
from lowland.evaluate.engine import rows_for
from lowland.geometry import Curve, Subspace
from lowland.geometry.curvature import need_scipy
from lowland.progress import Progress
from lowland.records import Chain, SurfaceResult
from lowland.samplers import infer, posterior_plane
from lowland.samplers.base import MarkovChain
from lowland.samplers.registry import sampler_of

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
_SHOWN = 2000  # training rows of a picture
_SIDE = 31  # points a side of it
_AXES = ("center", "z1", "z2")


class Subspaces(Stage):
    """A subspace about weights of a run, and the chains in it."""

    command, makes, key = "subspace", "posteriors in subspaces", "around"

    @classmethod
    def within(cls, run: Path) -> list[Path]:
        # a folder for each kind and sampler
        return sorted(path for path in (run / cls.command).glob("*") if cls.is_at(path))

    def subspace(self) -> Subspace:
        """The subspace that is there."""
        return Subspace.load(self.shape("subspace"))

    # -- for `lowland scan` ----------------------------------------------------------------------

    def plane(self) -> list[str]:
        return list(_AXES)

    @classmethod
    def owns(cls, word: str) -> bool:
        return word in _AXES

    def named(self) -> dict[str, Point]:
        """The centre, and a unit along the first two directions."""
        sub = self.subspace()
        tips = {f"z{i + 1}": sub.point(row) for i, row in enumerate(torch.eye(sub.k)[:2])}
        return {"center": sub.point(torch.zeros(sub.k))} | tips

    def drawn(self, words: Sequence[str]) -> dict[str, Curve]:
        return {}


def title(asked: Inference) -> str:
    """What a posterior is called, as the paper does."""
    return f"{KINDS[asked.kind]} + {SAMPLERS[asked.sampler]}"


def middle(folder: RunFolder, kind: str, around: str | None) -> list[str]:
    """The name of the weights that a subspace lies about; none where others say where it lies."""
    if kind in ("pca", "curve"):
        if around is not None:
            where = "the iterates' mean" if kind == "pca" else "the middle of the curve's ends"
            raise ConfigError(
                f"--around: --kind {kind} lies about {where}; leave it out, or take --kind random "
                "or hessian."
            )
        return []
    if around is None:
        around = "average-0" if "average-0" in names_in(folder) else "sgd-0"
    return [around]


def require(
    setup: Setup, asked: Inference, *, walk: Any = None, curve: Curve | None = None
) -> None:
    """Raises what else would come after minutes of training, Lanczos' method or sampling.

    Raises:
        ConfigError: more directions than there are, too many for a grid. LowlandError: a package
            that is not installed.
    """
    sampler_of(asked.sampler).require_packages()
    if asked.kind == "hessian":
        need_scipy()
    if walk is not None and asked.rank > len(walk) - 1:
        raise ConfigError(
            f"rank: expected at most {len(walk) - 1}, which {len(walk)} iterates span, got "
            f"{asked.rank}; collect more of them (average.every, average.start)."
        )
    most = setup.layout.size - (asked.kind == "hessian")
    if curve is None and asked.rank > most:
        raise ConfigError(
            f"rank: expected at most {most} for a network of {setup.layout.size} weights, got "
            f"{asked.rank}."
        )
    if curve is not None and asked.sampler == "grid" and len(curve.anchors) - 1 > 3:
        raise ConfigError(
            f"--sampler grid: the curve spans {len(curve.anchors) - 1} dimensions, and a grid has "
            "at most 3; take another sampler, or a curve of fewer --bends."
        )


def undiagnosed(asked: Inference) -> str | None:
    """What is not known of the chains without an optional package; None: nothing."""
    markov = isinstance(sampler_of(asked.sampler), MarkovChain)
    if not markov or asked.chains < 2 or find_spec("arviz_stats") is not None:
        return None
    return (
        "whether the chains agree will not be known, as R-hat and effective sample sizes need "
        'arviz-stats: pip install "lowland[samplers]".'
    )


def spanned(
    setup: Setup,
    asked: Inference,
    place: Path,
    center: Tensor | Point | None = None,
    *,
    walk: Any = None,
    curve: Curve | None = None,
    seed: int,
    progress: Progress = False,
) -> Subspace:
    """The subspace that is asked for, kept at `place`, from where a stopped run takes it.

    `center`: what "random" and "hessian" lie about. `walk`: the iterates of "pca". `curve`: that of
    "curve".
    """
    with suppress(StoreError):  # not there yet, or damaged
        return Subspace.load(place)
    if asked.kind == "pca":
        sub = Subspace.pca(walk, rank=asked.rank)
    elif asked.kind == "curve":
        assert curve is not None
        sub = Subspace.from_curve(curve)
    else:
        assert center is not None
        if asked.kind == "random":
            sub = Subspace.random(center, rank=asked.rank, seed=seed)
        else:
            sub = Subspace.hessian(
                setup.surface,
                center,
                rank=asked.rank,
                seed=seed,
                loader=rows_for(setup.surface, None, count=asked.rows),
                progress=progress,
            )
    place.parent.mkdir(parents=True, exist_ok=True)
    sub.save(place)
    return sub


def sampled(
    setup: Setup,
    sub: Subspace,
    asked: Inference,
    *,
    seed: int,
    checkpoint: Path,
    progress: Progress = False,
) -> Chain:
    """Chains in a subspace, on the training rows without augmentation.

    What the sampler warned of stands in their `about`, for whoever shows them.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        chain = infer(
            sub,
            setup.surface,
            sampler=asked.sampler,
            prior_scale=asked.prior_scale,
            temperature=asked.temperature,
            validation=setup.validation,
            chains=asked.chains,
            samples=asked.samples,
            warmup=asked.warmup,
            loader=rows_for(setup.surface, None, count=asked.rows),
            seed=seed,
            checkpoint=checkpoint,
            progress=progress,
        )
    chain.about["told"] = " ".join(dict.fromkeys(str(one.message) for one in told))
    return chain


def found(place: Path, record: Path) -> Chain | None:
    """Chains that are there, with their subspace; None where they are not, or damaged."""
    with suppress(StoreError):
        return Chain.load(record).within(Subspace.load(place))
    return None


def plane(
    setup: Setup,
    chain: Chain,
    asked: Inference,
    file: Path,
    *,
    journal: Path,
    walk: Any = None,
    progress: Progress = False,
) -> SurfaceResult:
    """The log posterior over the first two coordinates of a chain that knows its subspace.

    `journal`: a file that a stopped run goes on from.
    """
    with suppress(StoreError):  # not there yet, or damaged
        return SurfaceResult.load(file)
    sub = chain.posterior().shape
    assert isinstance(sub, Subspace)
    made = posterior_plane(
        sub,
        setup.surface,
        chain,
        resolution=_SIDE,
        count=min(_SHOWN, asked.rows or _SHOWN),
        paths=None if walk is None else {"SGD": walk},
        store=journal,
        progress=progress,
    )
    made.save(file)
    return made


def drawn(chain: Chain, plane: SurfaceResult | None) -> dict[str, Any]:
    """Pictures of chains, by name."""
    found: dict[str, Any] = {}
    if plane is not None:
        found["posterior"] = plots.posterior(plane, chain=chain)
    if chain.log_weights is None:
        found["trace"] = plots.trace(chain)
        if len(chain.coords) > 1:
            found["rank"] = plots.rank(chain, bins=min(20, chain.coords.shape[1]))
    return found


def seconds(chain: Chain) -> float:
    """What sampling took, with finding the temperature."""
    return float(chain.about["seconds"]) + float(chain.about.get("tuning", {}).get("seconds", 0))


def evaluations(chain: Chain) -> int:
    """Forward passes over the rows, with finding the temperature."""
    return chain.evaluations + int(chain.about.get("tuning", {}).get("evaluations", 0))
