"""Tables show names as they are, cut no number at any width, and mark the best of a column."""

import math
import re

import pytest
import torch

from lowland.cli.console import Terminal, visible
from lowland.cli.tables import print_table, show_comparison, show_metrics
from lowland.records import Table
from tests.cli.terminal import HOSTILE, assert_shown_as_it_is, output_of


def table(label: str = "SWAG") -> Table:
    return Table(
        {
            "method": [label, "Deep ensemble of 3"],
            "accuracy": torch.tensor([0.95917, 0.97123], dtype=torch.float64),
            "nll": torch.tensor([0.12345, 0.10785], dtype=torch.float64),
            "nll_se": torch.tensor([0.00123, 0.0021], dtype=torch.float64),
            "ece": torch.tensor([0.0111, 0.0255], dtype=torch.float64),
            "samples": torch.tensor([30.0, 3.0], dtype=torch.float64),
        }
    )


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "write",
    [
        lambda name, console: show_comparison(table(name), console),
        lambda name, console: show_metrics(table(name), "test", name, console),
        lambda name, console: print_table(
            {name: ["1"], "dtypes": [name]}, console, rows=name, labels=[name], title=name
        ),
    ],
    ids=["comparison", "metrics", "table"],
)
def test_names_are_shown_as_they_are(name: str, write) -> None:
    assert visible(name) in assert_shown_as_it_is(name, lambda console: write(name, console))


@pytest.mark.parametrize("width", [1, 10, 20, 30, 40, 60, 80])
def test_numbers_are_never_cut(width: int) -> None:
    numbers = ["0.9592", "0.9712", "0.1235±0.0012", "0.1079±0.0021", "0.0111", "0.0255", "30", "3"]
    for write in (
        lambda console: show_comparison(table(), console),
        lambda console: show_metrics(table(), "test", "Test data", console),
    ):
        out = output_of(write, width)
        assert "…" not in out
        assert all(number in out for number in numbers)


def bold_numbers(write) -> list[str]:
    out = output_of(write, force_terminal=True, color_system="standard")
    return re.findall(r"\x1b\[1m *([0-9.]+(?:e\+\d+)?)(?:±[0-9.]+)?\x1b", out)


def test_the_best_is_bold() -> None:
    bold = bold_numbers(lambda console: show_comparison(table(), console))
    assert bold == ["0.0111", "0.9712", "0.1079"]  # ECE of the first row, the others of the second


def cells(write) -> list[str]:
    """The cells of the last row."""
    return output_of(write, 200).strip().splitlines()[-1].split()


def test_shapes_are_not_ranked_and_unknown_values_are_a_dash() -> None:
    curves = Table(
        {
            "method": ["line"],
            "barrier": torch.tensor([math.nan]),
            "loss_max": torch.tensor([123456.0]),
            "length": torch.tensor([2.0]),
        }
    )

    def write(console: Terminal) -> None:
        show_metrics(curves, "curve", "", console, rows="curve")

    assert cells(write) == ["line", "1.235e+05", "-", "2.0"]
    assert bold_numbers(write) == []


def test_differences_have_signs_and_their_errors_none() -> None:
    change = Table({"method": ["SWAG"], "nll": torch.tensor([0.5]), "nll_se": torch.tensor([0.25])})

    def write(console: Terminal) -> None:
        show_metrics(change, "difference", "", console)

    assert cells(write) == ["SWAG", "+0.5000±0.2500"]


def test_columns_of_choices_are_beside_the_cost() -> None:
    chosen = Table(
        {"method": ["SWA"], "decay": torch.tensor([0.125]), "scale": torch.tensor([2.0])}
    )
    write = lambda console: show_comparison(chosen, console, tuned=["decay"])  # noqa: E731
    assert cells(write) == ["SWA", "0.125", "2.00"]
