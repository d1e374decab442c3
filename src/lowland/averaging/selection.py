"""The choice between candidates by paired differences on validation examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland import checks
from lowland.errors import ConfigError, DataError, NonFiniteError
from lowland.records import Selection, Table


@dataclass(frozen=True, eq=False)
class SelectedAverage:
    """What the averages that are selected on validation examples have in common.

    Attributes:
        selection: all candidates, compared with the default.
        evaluations, gradients: passes over the validation examples, without and with a gradient.
    """

    selection: Selection
    evaluations: float
    gradients: float

    @property
    def table(self) -> Table:
        """One row per candidate: see `Selection.table`."""
        return self.selection.table

    @property
    def message(self) -> str:
        """What is selected and why, in one line."""
        return self.selection.message

    def __str__(self) -> str:
        return f"{self.table}\n{self.message}"


def select(
    nlls: Mapping[str, Any],
    *,
    default: str,
    groups: Sequence[Any] | Tensor | None = None,
    standard_errors: float = 1.0,
) -> Selection:
    r"""The candidate to use: the default, unless another one is better by more than one paired
    standard error.

    With \(d_i\) the NLL of a candidate on item i minus that of the default on the same item, a
    candidate beats the default where \(\bar d < -k\,\mathrm{se}(\bar d)\). The one with the lowest
    mean NLL among those that beat it is selected. Candidates share the luck of the items, so that
    the paired error is usually far smaller than the errors of the means.

    Args:
        nlls: the negative log-likelihoods (n,) of each candidate by name, of the same items in the
            same order. A candidate with a value that is not finite is never selected.
        default: the name of the candidate to keep where none is clearly better.
        groups: (n,), a label for each item: items of one group, such as the pixels of an image or
            the tokens of a document, are not independent, and errors are clustered by group.
        standard_errors: k, by how many standard errors a candidate must be better.

    Raises:
        ConfigError: no candidate, or a default that is none. DataError: fewer than two items or
            groups, candidates or groups of different lengths. NonFiniteError: no candidate has a
            finite NLL.

    >>> sgd = torch.tensor([1.0, 2.0, 3.0, 4.0])
    >>> nlls = {"SGD": sgd, "SWA": sgd - torch.tensor([0.4, 0.5, 0.6, 0.5])}
    >>> print(select(nlls, default="SGD"))
    candidate     nll  nll_se  difference  difference_se
    SGD        2.5000  0.6455      0.0000         0.0000
    SWA        2.0000  0.6205     -0.5000         0.0408
    SWA: its validation NLL is 0.5000 ± 0.0408 lower than that of the default, SGD.
    """
    if not nlls:
        raise ConfigError("expected the NLLs of at least one candidate, got none.")
    if default not in nlls:
        raise ConfigError(f"default: expected one of {', '.join(nlls)}, got {default!r}.")
    k = checks.number("standard_errors", standard_errors, least=0)
    values = {name: _per_item(name, nll) for name, nll in nlls.items()}
    lengths = {name: len(nll) for name, nll in values.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"expected the NLLs of the same validation items for each candidate, got {lengths} "
            "values; evaluate all candidates on one loader."
        )
    names = list(values)
    groups = None if groups is None else _group_index(groups)
    means, differences = [], []
    for nll in values.values():
        means.append(mean_and_error(nll, groups))
        differences.append(_difference(nll, values[default], groups))
    # the first of equal ones, the default before all
    order = sorted(range(len(names)), key=lambda i: (means[i][0], names[i] != default))
    if not math.isfinite(means[order[0]][0]):
        raise NonFiniteError(
            f"no candidate has a finite validation NLL: {', '.join(names)}; look at the training "
            "loss of these runs, and leave out iterates of a run that diverged."
        )
    better = (i for i in order if _beats(*differences[i], k))
    best = next(better, names.index(default))
    (nll, nll_se), (difference, difference_se) = _columns(means), _columns(differences)
    return Selection(
        names,
        nll,
        nll_se,
        difference,
        difference_se,
        default,
        names[best],
        k,
        items=lengths[default],
        groups=lengths[default] if groups is None else int(groups.max()) + 1,
    )


def mean_and_error(
    values: Tensor, groups: Sequence[Any] | Tensor | None = None
) -> tuple[float, float]:
    r"""The mean of n values and its standard error, clustered by group where there are groups.

    \(\mathrm{se}^2 = \frac{G}{G - 1} \frac{1}{n^2} \sum_g \big(\sum_{i \in g} (x_i - \bar
    x)\big)^2\); with a group for each value that is \(s^2 / n\), s over n - 1. Values that are not
    finite have the mean infinity and no error, NaN.

    Raises:
        DataError: fewer than two values or groups, or groups of another length.

    >>> mean_and_error(torch.tensor([1.0, 3.0]))
    (2.0, 1.0)
    >>> mean_and_error(torch.tensor([1.0, 1.0, 3.0, 3.0]), ["a", "a", "b", "b"])
    (2.0, 1.0)
    """
    n = len(values)
    if n < 2:
        raise DataError(
            f"expected at least two validation items, got {n}: one has no standard error; give "
            "more validation examples."
        )
    values = values.double()
    if not bool(torch.isfinite(values).all()):
        return math.inf, math.nan
    mean = values.mean()
    sums = values - mean
    if groups is not None:
        index = _group_index(groups)
        if len(index) != n:
            raise DataError(
                f"groups: expected {n} labels, one for each item, got {len(index)}; give them in "
                "the order of the items."
            )
        sums = values.new_zeros(int(index.max()) + 1).index_add(0, index.to(sums.device), sums)
        if len(sums) < 2:
            raise DataError(
                "groups: expected at least two groups, got one: it has no standard error; leave "
                "groups out, or give examples of more groups."
            )
    count = len(sums)
    return float(mean), float((sums.square().sum() * count / (count - 1)).sqrt() / n)


def _per_item(name: str, nll: Any) -> Tensor:
    values = torch.as_tensor(nll)
    if values.ndim != 1:
        raise DataError(
            f"{name}: expected the NLLs of the validation items, (n,), got {tuple(values.shape)}."
        )
    return values.detach().double()


def _difference(
    nll: Tensor, default: Tensor, groups: Sequence[Any] | Tensor | None
) -> tuple[float, float]:
    """Of a candidate from the default; minus infinity where only the default is not finite."""
    mean, error = mean_and_error(nll - default, groups)
    if math.isinf(mean) and bool(torch.isfinite(nll).all()):
        return -math.inf, error
    return mean, error


def _beats(difference: float, error: float, k: float) -> bool:
    return difference == -math.inf or difference < -k * error


def _columns(pairs: list[tuple[float, float]]) -> tuple[Tensor, Tensor]:
    first, second = zip(*pairs, strict=True)
    return torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)


def _group_index(groups: Sequence[Any] | Tensor) -> Tensor:
    """The number of each item's group, from 0 on."""
    if isinstance(groups, Tensor):
        index: Tensor = torch.unique(groups, return_inverse=True)[1]
        return index
    numbers: dict[Any, int] = {}
    return torch.tensor([numbers.setdefault(label, len(numbers)) for label in groups])
