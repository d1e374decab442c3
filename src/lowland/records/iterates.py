"""Each iterate beside what the iterates up to it average to."""

from __future__ import annotations

from dataclasses import dataclass

from lowland.records.table import Table


@dataclass(frozen=True, eq=False)
class IterateTable(Table):
    """Iterate i, the average of the weights 1 to i, and the ensemble of the networks 1 to i.

    Columns: `iterate`, i from 1 on; `step`, where the iterates have one; `error` (of a classifier)
    or `rmse` (of a regression) and `nll` of the iterate alone; the same of the average in weights,
    with the ending `_average`, and of the ensemble, with the ending `_ensemble`.

    >>> import torch
    >>> columns = {"iterate": torch.tensor([1, 2]), "nll": torch.tensor([0.5, 0.5])}
    >>> table = IterateTable(columns | {"nll_average": torch.tensor([0.5, 0.375])})
    >>> table.nll_average[1], table.measures
    (tensor(0.3750), ['nll'])
    """

    figure = "iterates"

    @property
    def measures(self) -> list[str]:
        """The metrics that it has: "error" or "rmse", and "nll"."""
        return [name for name in ("error", "rmse", "nll") if name in self.columns]
