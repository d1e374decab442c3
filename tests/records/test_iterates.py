"""Metrics that a table of iterates has."""

import torch

from lowland.records import IterateTable


def test_measures_are_the_metrics_of_the_iterates():
    two = torch.tensor([0.5, 0.25])
    columns = {"iterate": torch.tensor([1, 2]), "nll": two, "error": two, "nll_average": two}
    assert IterateTable(columns).measures == ["error", "nll"]
    assert IterateTable({"rmse": two, "nll": two}).measures == ["rmse", "nll"]


def test_it_is_written_as_other_tables():
    table = IterateTable({"iterate": torch.tensor([1]), "nll": torch.tensor([0.5])})
    assert table.to_csv() == "iterate,nll\n1,0.5\n"
    assert table.to_markdown().splitlines()[-1] == "| 1 | 0.5000 |"
    assert type(table.from_rows(table.rows())) is IterateTable
