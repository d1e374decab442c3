"""Similarity of weight vectors, as vectors and as functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland.core import LossSurface, Point, Task
from lowland.core.inner import inner
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError, DataError
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.nll import resolve_task, vmap_points
from lowland.evaluate.weights import as_posterior
from lowland.progress import Progress
from lowland.records import SimilarityResult


def similarity(
    surface: LossSurface,
    weights: Any,
    *,
    loader: Iterable[Any] | None = None,
    origin: Tensor | Point | None = None,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> SimilarityResult:
    r"""\(\cos(w_i, w_j)\), \(|w_i - w_j|\) and the share of examples with different predictions.

    The matrices of Fort et al. 2019: iterates of one run agree, those of several seeds do not.

    Args:
        weights: (n, P), an `Ensemble`, a `Trajectory`, an iterable of (P,), or a dict of names.
        loader: examples to predict, targets not required. None: the surface's own.
        origin: where angles are measured, such as the initialisation; None: zero weights.
        progress, options: as for `predict`.

    Raises:
        ConfigError: fewer than two vectors, a vector equal to the origin. LayoutError: weights of
            another model. NonFiniteError: NaN or infinite weights.

    >>> from torch import nn
    >>> from lowland.core import Classification
    >>> data = [(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1]))]
    >>> surface = LossSurface(nn.Linear(1, 2, bias=False), Classification(), data)
    >>> disagreements = similarity(surface, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> disagreements.cosine[0, 1], disagreements.distance[0, 1], disagreements.disagreement[0, 1]
    (tensor(0., dtype=torch.float64), tensor(1.4142, dtype=torch.float64),
     tensor(1., dtype=torch.float64))
    """
    eval_options = surface.options.override(**options)
    names = list(map(str, weights)) if isinstance(weights, Mapping) else None
    vectors = weight_vectors(surface, weights)
    cosine, distance = cosines_and_distances(surface, vectors, origin, names)
    classes = ClassSink(surface.task, surface.example)
    examples = 0
    if surface.task.kind != "regression":
        evaluation = Evaluation(surface, [(loader, classes)], eval_options, total=len(vectors))
        examples = evaluation.run(vectors, progress=progress, label="similarity").num_examples or 0
    return SimilarityResult(
        cosine, distance, classes.disagreement(), names, eval_options.batchnorm, examples
    )


def weight_vectors(surface: LossSurface, weights: Any) -> list[Point | Tensor]:
    """The weight vectors as a list; those of a trajectory stay on disk, mapped into memory."""
    if isinstance(weights, Mapping):
        weights = list(weights.values())
    posterior = as_posterior(weights)
    if posterior is not None and posterior.support is None:
        raise ConfigError(
            f"weights: a {type(posterior).__name__} has no members to compare; draw some, as in "
            "post.sample(8)."
        )
    if posterior is None and not hasattr(weights, "__iter__"):
        raise DataError(
            f"weights: expected (n, P), an Ensemble, a Trajectory or an iterable of (P,), got "
            f"{type(weights).__name__}."
        )
    vectors = list(weights if posterior is None else posterior.points(posterior.support or 0))
    if len(vectors) < 2:
        raise ConfigError(f"weights: expected at least 2 vectors to compare, got {len(vectors)}.")
    for i, vector in enumerate(vectors):
        surface.layout.check(_flat(vector), flat=True)
        surface.layout.require_finite(_flat(vector), what=f"weights: those of vector {i}")
    return vectors


def cosines_and_distances(
    surface: LossSurface, vectors: Sequence[Point | Tensor], origin: Any, names: list[str] | None
) -> tuple[Tensor, Tensor]:
    """Cosines and distances, (n, n) float64, two vectors at a time."""
    n = len(vectors)
    if origin is not None:
        surface.layout.check(_flat(origin), flat=True)
    gram, square = torch.zeros(2, n, n, dtype=torch.float64)
    for i in range(n):
        left = _flat(vectors[i])
        a = left if origin is None else left - _flat(origin).to(left)
        for j in range(i, n):
            right = _flat(vectors[j]).to(left.device)
            b = right if origin is None else right - _flat(origin).to(right)
            # |a|² + |b|² - 2 ab would cancel for near vectors
            difference = left - right
            gram[i, j] = gram[j, i] = inner(a, b)
            square[i, j] = square[j, i] = inner(difference, difference)
    norms = gram.diagonal().sqrt()
    if bool((norms == 0).any()):
        i = int(norms.argmin())
        raise ConfigError(
            f"weights: vector {names[i] if names else i} is the origin, which has no "
            "direction; leave it out."
        )
    cosine = (gram / norms / norms[:, None]).clamp(-1, 1).fill_diagonal_(1)
    return cosine, square.sqrt()


def _flat(vector: Tensor | Point) -> Tensor:
    return vector.weights if isinstance(vector, Point) else vector


class ClassSink:
    """A `Sink` that stores the predicted class of each valid item, for every point."""

    holds_examples = True

    def __init__(self, task: Task, example: Callable[[], Any] | None) -> None:
        self.task = task
        self.example = example  # returns a labelled batch, for examples without labels
        self._classes: list[Tensor] = []  # (items,) a point
        self._parts: list[Tensor] = []  # (n, items) a batch, of the chunk under way

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        task = self.task = resolve_task(self.task, outputs, target, self.example)
        probs = vmap_points(task.statistics, outputs).get("probs")  # (n, B, C, ...)
        if probs is None:
            return
        if getattr(task, "form", None) == "multilabel":
            predicted = probs > 0.5
        else:
            predicted = probs.argmax(2)
        predicted = predicted.flatten(1)
        mask = None if target is None else task.valid(target)
        if mask is not None and mask.numel() == predicted.shape[1]:
            predicted = predicted[:, mask]
        self._parts.append(predicted.to(torch.int32))

    def end(self, first: int, n: int) -> None:
        self._classes += torch.cat(self._parts, 1).unbind() if self._parts else ()
        self._parts = []

    def disagreement(self) -> Tensor | None:
        """(n, n): the share of items whose classes differ."""
        if not self._classes:
            return None
        rows = torch.stack(self._classes)
        return torch.stack([(rows != row).double().mean(1) for row in rows]).cpu()
