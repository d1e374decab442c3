"""Out-of-distribution detection: examples told apart by the uncertainty of their predictions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowland import checks
from lowland.core import Classification, Task
from lowland.errors import DataError
from lowland.posteriors.noise import DATA, generator
from lowland.records import Predictive, Table
from lowland.scoring.labels import binary_probs, partial_mask, prediction_task

TPR = 0.95  # of in-distribution examples, accepted


def ood(pred_in: Predictive, pred_out: Predictive, *, task: Task | None = None) -> Table:
    r"""AUROC and FPR95 of out-of-distribution detection by the uncertainty of a prediction.

    AUROC is \(P(u_\text{out} > u_\text{in}) + \tfrac12 P(u_\text{out} = u_\text{in})\): ½ where the
    two cannot be told apart, 1 where every out-of-distribution example is the more uncertain
    (Hendrycks & Gimpel 2017). FPR95 is the share of out-of-distribution examples below the
    threshold that accepts 95% of the in-distribution ones (Liang et al. 2018).

    Args:
        pred_in: predictions of examples like those of the training set.
        pred_out: predictions of others; targets are not needed.
        task: the task of the predictions; None: the one that each prediction carries.

    Returns:
        A `Table` of score, auroc and fpr95; the scores are those of `uncertainties`.

    Raises:
        DataError: predictions without a common score.

    >>> certain = torch.tensor([[0.99, 0.01], [0.95, 0.05]])
    >>> uncertain = torch.tensor([[0.5, 0.5], [0.97, 0.03]])
    >>> pred_in, pred_out = (
    ...     Predictive("classification", 1, probs=probs) for probs in (certain, uncertain)
    ... )
    >>> print(ood(pred_in, pred_out))
    score             auroc   fpr95
    entropy          0.7500  0.5000
    max probability  0.7500  0.5000
    """
    inside, outside = uncertainties(pred_in, task=task), uncertainties(pred_out, task=task)
    names = [name for name in inside if name in outside]
    if not names:
        raise DataError("the two predictions have no score in common; predict both alike.")
    values = [(_auroc(inside[n], outside[n]), _fpr95(inside[n], outside[n])) for n in names]
    auroc, fpr95 = torch.tensor(values, dtype=torch.float64).unbind(1)
    return Table({"score": names, "auroc": auroc, "fpr95": fpr95})


def uncertainties(pred: Predictive, *, task: Task | None = None) -> dict[str, Tensor]:
    """Scores (N,) by name, higher for more uncertain examples.

    Classification: "entropy" of the averaged probabilities (for dense predictions, the mean over
    the positions that count); "max probability", one minus it; "mutual information" between label
    and weights, for more than one sample. Regression: "variance", the mean log of the total
    variance. Examples in which no item counts are left out; without targets, all items count.

    Raises:
        DataError: a prediction without probabilities.

    >>> pred = Predictive("classification", 1, probs=torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    >>> uncertainties(pred)["entropy"]
    tensor([0.6931, 0.0000], dtype=torch.float64)
    """
    if pred.variance is not None:
        return {"variance": pred.variance.double().log().flatten(1).mean(1)}
    scores, mask = item_uncertainties(pred, prediction_task(pred, task))
    return {name: _example_means(u, mask) for name, u in scores.items()}


def item_uncertainties(pred: Predictive, task: Task) -> tuple[dict[str, Tensor], Tensor | None]:
    """Scores by name, (N, ...) each, and which of their items count; None: all."""
    if pred.probs is None:
        raise DataError("the prediction holds no probabilities: predict with keep='probs'.")
    probs = pred.probs.double()
    entropy = task.entropy(probs) if pred.entropy is None else pred.entropy.double()
    independent = isinstance(task, Classification) and task.form == "multilabel"
    largest = (binary_probs(probs) if independent else probs).amax(1)
    scores = {"entropy": entropy, "max probability": 1 - largest}
    if pred.mutual_information is not None and pred.samples > 1:
        scores["mutual information"] = pred.mutual_information.double()
    mask = None if pred.targets is None else partial_mask(task.valid(pred.targets))
    return scores, None if mask is None else mask.reshape(entropy.shape)


def _example_means(values: Tensor, mask: Tensor | None) -> Tensor:  # (N, ...) -> (N,)
    """Means over the positions that count."""
    if mask is None:
        return values if values.ndim == 1 else values.flatten(1).mean(1)
    mask = mask.reshape(len(mask), -1)
    sums = torch.where(mask, values.reshape(mask.shape), 0.0).sum(1)
    count = mask.sum(1)
    return sums[count > 0] / count[count > 0]


def _auroc(inside: Tensor, outside: Tensor) -> float:
    """By the rank sum of the out-of-distribution examples (Mann-Whitney)."""
    _, ranks, ties = torch.unique(
        torch.cat([inside, outside]), return_inverse=True, return_counts=True
    )
    doubled = 2 * ties.cumsum(0) - ties  # twice the mean rank of equal scores, less one: integers
    pairs = int(doubled[ranks[len(inside) :]].sum()) - len(outside) ** 2
    return pairs / 2 / (len(inside) * len(outside))


def _fpr95(inside: Tensor, outside: Tensor) -> float:
    accepted_count = math.ceil(TPR * len(inside))
    threshold = inside.sort().values[accepted_count - 1]
    return float((outside <= threshold).double().mean())


def noise_like(
    inputs: Tensor, *, kind: str = "gaussian", examples: int | None = None, seed: int = 0
) -> Tensor:
    """Independent noise with the mean and standard deviation of each channel of the inputs.

    Args:
        inputs: (N, C, ...), floating-point.
        kind: "gaussian" or "uniform".
        examples: how many to make; None: as many as the inputs.
        seed: example i is a function of the seed and i alone.

    Raises:
        ConfigError: an unknown kind. DataError: inputs of other shapes or types.

    >>> inputs = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    >>> noise = noise_like(inputs, examples=1000)
    >>> noise.mean(0).round(), noise.std(0).round()
    (tensor([1., 5.]), tensor([1., 0.]))
    """
    checks.choice("kind", kind, ("gaussian", "uniform"))
    if inputs.ndim < 2 or not inputs.is_floating_point() or not len(inputs):
        raise DataError(
            f"noise_like: expected floating-point inputs (N, C, ...), got {tuple(inputs.shape)} of "
            f"{inputs.dtype}."
        )
    seed = checks.seed(seed)
    examples = len(inputs) if examples is None else checks.whole("examples", examples, least=1)
    other_dims = [dim for dim in range(inputs.ndim) if dim != 1]
    variance, mean = torch.var_mean(inputs.double(), other_dims, correction=0, keepdim=True)
    noise = torch.empty(examples, *inputs.shape[1:], dtype=inputs.dtype)
    for i, example in enumerate(noise):
        source = generator(seed, i, DATA)
        if kind == "gaussian":
            example.normal_(generator=source)
        else:
            example.uniform_(-math.sqrt(3), math.sqrt(3), generator=source)
    return (noise.to(mean) * variance.sqrt() + mean).to(inputs.dtype)
