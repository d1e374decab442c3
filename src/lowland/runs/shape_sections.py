"""The sections of curves, simplexes and subspaces."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationInfo, field_validator

from lowland.runs.keys import Positive, PositiveList, Section, key


class Connect(Section):
    """Curves between the first two annealed networks, and the plane of the first one."""

    kinds: list[Literal["bezier", "chain"]] = key(["bezier"], "curves to fit", min_length=1)
    bends: int = key(1, "free control points of a curve", ge=1)
    epochs: int | None = key(
        None, "length of the fit; `null`: that of a network's training", unit="epochs", ge=1
    )
    lr: float = key(
        0.05,
        "learning rate of the fit; it falls from half of the budget on",
        gt=0,
        allow_inf_nan=False,
    )
    points: int = key(61, "points along a curve at which losses are measured", ge=3)
    examples: int = key(10_000, "training examples for losses along curves", ge=2)
    resolution: int = key(41, "points along each axis of the plane; 0: no plane", ge=0)


class Growth(Section):
    """Simplexes around the first annealed networks, from which the method espro draws."""

    components: int = key(1, "simplexes; they share the `samples` of the run", ge=1)
    vertices: int = key(4, "vertices of a simplex, the network included", ge=2)
    epochs: int = key(10, "length of fitting each vertex", unit="epochs", ge=1)
    samples: int = key(5, "points of the simplex in a step", ge=1)
    lr: float = key(
        0.05,
        "learning rate of the fit; it falls from half of the budget on",
        gt=0,
        allow_inf_nan=False,
    )
    strength: float | None = key(
        None,
        "weight of the volume in the loss, lambda* of the paper; `null`: 1e-6, or 0.1 for vertices "
        "that several networks share",
        ge=0,
        allow_inf_nan=False,
    )
    jitter: float = key(
        1e-2,
        "distance from the centroid at which a new vertex begins",
        unit="mean edge lengths",
        gt=0,
        allow_inf_nan=False,
    )
    rise: float = key(
        0.1,
        "how far the loss inside may exceed that of the network; a vertex that brings it higher is "
        "left out, and growth ends",
        unit="nats per example",
        ge=0,
    )
    points: int = key(20, "random points at which a new vertex is judged", ge=1)
    examples: int = key(10_000, "training examples for losses at these points", ge=2)


class Inference(Section):
    """The posterior in a subspace, from which the method subspace draws."""

    kind: Literal["pca", "random", "curve", "hessian"] = key(
        "pca",
        "what spans the subspace: principal components of SGD iterates, random directions, a curve "
        "of `lowland connect` (in `lowland subspace` alone), leading eigenvectors of the Hessian",
    )
    rank: int = key(
        5, "dimensions; `pca` requires one iterate more, and a curve has its own number", ge=1
    )
    sampler: Literal["ess", "slice", "nuts", "sgld", "vi", "flow", "grid"] = key(
        "ess", "sampler; `grid` for at most 3 dimensions"
    )
    temperature: Literal["tune"] | Positive | PositiveList = key(
        "tune",
        "divisor of the log-likelihood; of a list, or with `tune` of eleven from 0.1 to 10,000, "
        "the best on validation examples",
    )
    prior_scale: Literal["tune"] | Positive | PositiveList = key(
        1.0,
        "standard deviation of the prior, in units of the directions; `tune` tries 0.3, 1 and 3",
    )
    chains: int = key(16, "chains that are sampled at once", ge=1)
    samples: int = key(50, "samples of each chain after its warm-up", ge=1)
    warmup: int | None = key(
        None,
        "transitions of each chain before its samples; `null`: 200, of `nuts` 300, of `sgld` 1,000",
        ge=0,
    )
    examples: int | None = key(
        None, "training examples of the likelihood, without augmentation; `null`: all", ge=2
    )

    @field_validator("sampler")
    @classmethod
    def _few_dimensions(cls, sampler: str, info: ValidationInfo) -> str:
        rank = info.data.get("rank", 1)
        if sampler == "grid" and rank > 3 and info.data.get("kind") != "curve":
            raise ValueError(f"expected a rank of at most 3 for a grid, which is {rank}")
        return sampler
