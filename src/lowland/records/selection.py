"""Which candidate predicts best on validation examples, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lowland.errors import DataError
from lowland.records.base import Record
from lowland.records.table import Table


@dataclass(frozen=True, eq=False)
class Selection(Record):
    """Candidates compared on the same validation examples, in nats per item: m candidates.

    Attributes:
        names: of the candidates.
        nll, nll_se: (m,), the mean negative log-likelihood of each, infinite where an example's is
            not finite, and its standard error.
        difference, difference_se: (m,), the mean of the paired differences, candidate minus
            default, and its standard error; negative: better than the default.
        default: the candidate that stays unless another one is better.
        best: the candidate that is selected.
        standard_errors: by how many paired standard errors another one must be better.
        items: validation items. groups: into how many independent groups they fall.

    >>> import torch
    >>> errors = torch.tensor([0.01, 0.02])
    >>> difference = torch.tensor([0.0, -0.25]), torch.tensor([0.0, 0.05])
    >>> record = Selection(
    ...     ["SGD", "SWA"], torch.tensor([1.0, 0.75]), errors, *difference, "SGD", "SWA"
    ... )
    >>> print(record.message)
    SWA: its validation NLL is 0.2500 ± 0.0500 lower than that of the default, SGD.
    """

    figure = "selection"
    names: list[str]
    nll: Tensor
    nll_se: Tensor
    difference: Tensor
    difference_se: Tensor
    default: str
    best: str
    standard_errors: float = 1.0
    items: int = 0
    groups: int = 0

    def __post_init__(self) -> None:
        columns = (self.nll, self.nll_se, self.difference, self.difference_se)
        if any(len(values) != len(self.names) for values in columns):
            raise DataError(
                f"expected {len(self.names)} values, one for each name, got "
                f"{', '.join(str(len(values)) for values in columns)}."
            )
        for name in (self.default, self.best):
            if name not in self.names:
                raise DataError(f"expected one of {', '.join(self.names)}, got {name!r}.")

    @property
    def table(self) -> Table:
        """One row per candidate: its name, nll, difference from the default, standard errors."""
        return Table(
            {
                "candidate": self.names,
                "nll": self.nll,
                "nll_se": self.nll_se,
                "difference": self.difference,
                "difference_se": self.difference_se,
            }
        )

    @property
    def message(self) -> str:
        """What is selected and why, in one line."""
        i = self.names.index(self.best)
        if self.best != self.default:
            by = f"{-float(self.difference[i]):.4f} ± {float(self.difference_se[i]):.4f}"
            return (
                f"{self.best}: its validation NLL is {by} lower than that of the default, "
                f"{self.default}."
            )
        many = "one paired standard error"
        if self.standard_errors != 1:
            many = f"{self.standard_errors:g} paired standard errors"
        return f"{self.default}, the default: no candidate has an NLL lower by more than {many}."

    def __str__(self) -> str:
        return f"{self.table}\n{self.message}"
