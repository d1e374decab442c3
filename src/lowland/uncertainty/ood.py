"""Whether uncertainty tells strange rows from those that the network was made for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowland import checks
from lowland.core import Classification, Task
from lowland.errors import ConfigError, DataError
from lowland.posteriors.noise import DATA, generator
from lowland.records import Predictive, Table
from lowland.scoring.error_curve import some
from lowland.scoring.labels import pairs, task_of

TPR = 0.95  # of rows in distribution, accepted


def ood(pred_in: Predictive, pred_out: Predictive, *, task: Task | None = None) -> Table:
    r"""AUROC and FPR95 of telling out-of-distribution rows by the uncertainty of a prediction.

    AUROC is \(P(u_\text{out} > u_\text{in}) + \tfrac12 P(u_\text{out} = u_\text{in})\): ½ where the
    two cannot be told apart, 1 where every strange row is the more uncertain (Hendrycks & Gimpel
    2017). FPR95 is the share of strange rows that pass below the threshold which 95% of the rows in
    distribution pass (Liang et al. 2018).

    Args:
        pred_in: of rows like those trained on. pred_out: of others; targets are not needed.
        task: as they were predicted with; None: the one that each prediction carries.

    Returns:
        A `Table` of score, auroc and fpr95; the scores are those of `uncertainties`.

    >>> sure = torch.tensor([[0.99, 0.01], [0.95, 0.05]])
    >>> unsure = torch.tensor([[0.5, 0.5], [0.97, 0.03]])
    >>> pred_in, pred_out = (Predictive("classification", 1, probs=p) for p in (sure, unsure))
    >>> print(ood(pred_in, pred_out))
    score             auroc   fpr95
    entropy          0.7500  0.5000
    max probability  0.7500  0.5000
    """
    inside, outside = uncertainties(pred_in, task=task), uncertainties(pred_out, task=task)
    names = [name for name in inside if name in outside]
    if not names:
        raise DataError("the two predictions have no score in common; predict both alike.")
    found = [(_auroc(inside[n], outside[n]), _fpr95(inside[n], outside[n])) for n in names]
    auroc, fpr95 = torch.tensor(found, dtype=torch.float64).unbind(1)
    return Table({"score": names, "auroc": auroc, "fpr95": fpr95})


def uncertainties(pred: Predictive, *, task: Task | None = None) -> dict[str, Tensor]:
    """Scores (N,) by name, higher where less is known; rows of which nothing counts are left out.

    Classification: "entropy" of the averaged probabilities (of dense predictions the mean over
    the positions that count); "max probability", one minus it; "mutual information" between label
    and weights, where there were several samples. Regression: "variance", the mean log of the total
    variance. Rows without targets count whole.

    >>> pred = Predictive("classification", 1, probs=torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    >>> uncertainties(pred)["entropy"]
    tensor([0.6931, 0.0000], dtype=torch.float64)
    """
    if pred.variance is not None:
        return {"variance": pred.variance.double().log().flatten(1).mean(1)}
    each, counted = item_uncertainties(pred, task_of(pred, task))
    return {name: _by_row(u, counted) for name, u in each.items()}


def item_uncertainties(pred: Predictive, task: Task) -> tuple[dict[str, Tensor], Tensor | None]:
    """Scores by name, (N, ...) each, and which items of them count; None: all."""
    if pred.probs is None:
        raise DataError("the prediction holds no probabilities: predict with keep='probs'.")
    probs = pred.probs.double()
    entropy = task.entropy(probs) if pred.entropy is None else pred.entropy.double()
    labels = isinstance(task, Classification) and task.form == "multilabel"
    each = pairs(probs) if labels else probs
    found = {"entropy": entropy, "max probability": 1 - each.amax(1)}
    if pred.mutual_information is not None and pred.samples > 1:
        found["mutual information"] = pred.mutual_information.double()
    counted = None if pred.targets is None else some(task.valid(pred.targets))
    return found, None if counted is None else counted.reshape(entropy.shape)


def _by_row(values: Tensor, counted: Tensor | None) -> Tensor:  # (N, ...) -> (N,)
    """Means over the positions that count."""
    if counted is None:
        return values if values.ndim == 1 else values.flatten(1).mean(1)
    counted = counted.reshape(len(counted), -1)
    sums = torch.where(counted, values.reshape(counted.shape), 0.0).sum(1)
    items = counted.sum(1)
    return sums[items > 0] / items[items > 0]


def _auroc(inside: Tensor, outside: Tensor) -> float:
    """The mean rank of strange rows among all, from which the ranks among themselves are taken."""
    _, ranks, ties = torch.unique(
        torch.cat([inside, outside]), return_inverse=True, return_counts=True
    )
    twice = 2 * ties.cumsum(0) - ties  # twice the mean rank of equal scores, less one: integers
    pairs = int(twice[ranks[len(inside) :]].sum()) - len(outside) ** 2
    return pairs / 2 / (len(inside) * len(outside))


def _fpr95(inside: Tensor, outside: Tensor) -> float:
    accepted = math.ceil(TPR * len(inside))
    threshold = inside.sort().values[accepted - 1]
    return float((outside <= threshold).double().mean())


def noise_like(
    inputs: Tensor, *, kind: str = "gaussian", examples: int | None = None, seed: int = 0
) -> Tensor:
    """Independent noise with the mean and standard deviation of each channel of the inputs.

    Args:
        inputs: (N, C, ...). kind: "gaussian" or "uniform". examples: how many; None: as many as
            the inputs.
        seed: example i is a function of the seed and i alone.

    >>> inputs = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    >>> noise = noise_like(inputs, examples=1000)
    >>> noise.mean(0).round(), noise.std(0).round()
    (tensor([1., 5.]), tensor([1., 0.]))
    """
    if kind not in ("gaussian", "uniform"):
        raise ConfigError(f"kind: expected 'gaussian' or 'uniform', got {kind!r}.")
    if inputs.ndim < 2 or not inputs.is_floating_point() or not len(inputs):
        raise DataError(
            f"noise is made for floating-point inputs (N, C, ...), got {tuple(inputs.shape)} of "
            f"{inputs.dtype}."
        )
    seed = checks.seed(seed)
    examples = len(inputs) if examples is None else checks.whole("examples", examples, least=1)
    over = [dim for dim in range(inputs.ndim) if dim != 1]
    variance, mean = torch.var_mean(inputs.double(), over, correction=0, keepdim=True)
    shape = inputs.shape[1:]
    out = torch.empty(examples, *shape, dtype=inputs.dtype)
    for i, row in enumerate(out):
        source = generator(seed, i, DATA)
        if kind == "gaussian":
            row.normal_(generator=source)
        else:
            row.uniform_(-math.sqrt(3), math.sqrt(3), generator=source)
    return (out.to(mean) * variance.sqrt() + mean).to(inputs.dtype)
