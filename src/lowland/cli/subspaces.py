"""The folder of posteriors in subspaces of finished runs, and how they are sampled."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from lowland import plots
from lowland.cli.config import Inference
from lowland.cli.setup import Setup
from lowland.cli.stage import Stage
from lowland.core import Point
from lowland.errors import ConfigError, StoreError
from lowland.evaluate.evaluator import rows_for
from lowland.geometry import Curve, Subspace
from lowland.progress import Progress
from lowland.records import Chain, SurfaceResult
from lowland.samplers import infer, posterior_plane

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

    def subspace(self) -> Subspace:
        """The subspace that is there."""
        return Subspace.load(self.shape("subspace"))

    # -- for `lowland scan` ----------------------------------------------------------------------

    def plane(self) -> list[str]:
        return list(_AXES)

    @classmethod
    def owns(cls, word: str) -> bool:
        return word in _AXES

    def named(self) -> dict[str, Tensor | Point]:
        """The centre, and a unit along the first two directions."""
        sub = self.subspace()
        tips = {f"z{i + 1}": sub.center + row for i, row in enumerate(sub.basis[:2])}
        return {"center": sub.center} | dict(tips)

    def drawn(self, words: Sequence[str]) -> dict[str, Curve]:
        return {}


def title(asked: Inference) -> str:
    """What a posterior is called, as the paper does."""
    return f"{KINDS[asked.kind]} + {SAMPLERS[asked.sampler]}"


def require_enough(walk: Any, rank: int) -> None:
    """Raises `ConfigError` where so many directions cannot come of the iterates."""
    most = len(walk) - 1
    if rank > most:
        raise ConfigError(
            f"rank: expected at most {most}, which {len(walk)} iterates span, got {rank}; collect "
            "more of them (average.every, average.start)."
        )


def spanned(
    setup: Setup,
    asked: Inference,
    center: Tensor,
    *,
    walk: Any = None,
    curve: Curve | None = None,
    seed: int,
) -> Subspace:
    """The subspace that is asked for.

    `walk`: the iterates of "pca". `curve`: that of "curve".
    """
    if asked.kind == "pca":
        require_enough(walk, asked.rank)
        return Subspace.pca(walk, rank=asked.rank)
    if asked.kind == "curve":
        assert curve is not None
        return Subspace.from_curve(curve)
    if asked.kind == "random":
        return Subspace.random(center, rank=asked.rank, seed=seed)
    return Subspace.hessian(setup.surface, center, rank=asked.rank, seed=seed)


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


def kept(sub: Subspace, chain: Chain, place: Path, record: Path) -> None:
    """Writes a subspace and its chains."""
    place.parent.mkdir(parents=True, exist_ok=True)
    sub.save(place)
    chain.save(record)


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
    walk: Any = None,
    progress: Progress = False,
) -> SurfaceResult:
    """The log posterior over the first two coordinates of a chain that knows its subspace."""
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
