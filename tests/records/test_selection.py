"""The record of a choice: its columns belong together, and its line gives the reason."""

import pytest
import torch

from lowland.errors import DataError
from lowland.records import Selection

TWO = torch.tensor([0.5, 0.25])


def record(best: str = "SWA", **fields) -> Selection:
    return Selection(["SGD", "SWA"], TWO, TWO, TWO - 0.5, TWO / 10, "SGD", best, **fields)


def test_the_message_gives_difference_and_error():
    assert "SWA: its validation NLL is 0.2500 ± 0.0250 lower" in record().message
    assert "no candidate has an NLL lower by more than one paired" in record("SGD").message
    assert "2 paired standard errors" in record("SGD", standard_errors=2).message


def test_the_table_has_a_row_for_each_candidate():
    rows = list(record().table.rows())
    assert [row["candidate"] for row in rows] == ["SGD", "SWA"]
    assert rows[1]["difference"] == -0.25
    assert str(record()).splitlines()[-1] == record().message


def test_fields_that_do_not_belong_together_are_refused():
    with pytest.raises(DataError, match="expected one of SGD, SWA, got 'EMA'"):
        record("EMA")
    with pytest.raises(DataError, match="one for each name, got 1, 2, 2, 2"):
        Selection(["SGD", "SWA"], TWO[:1], TWO, TWO, TWO, "SGD", "SWA")
