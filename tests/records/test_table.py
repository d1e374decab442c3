"""Tables: columns, rows, letters and frames."""

import dataclasses
import io
import math

import pytest
import torch

from lowland.records import Table
from tests.records.examples import EXAMPLES


def test_columns_of_a_table() -> None:
    table = EXAMPLES["Table"][0]
    assert table.nll[1] == 0.25
    assert table.method == ["SGD", "SWA"]
    assert len(table) == 2
    assert list(table.rows()) == [
        {"method": "SGD", "nll": 0.5, "n": 1},
        {"method": "SWA", "nll": 0.25, "n": 2},
    ]
    with pytest.raises(AttributeError, match="no column 'acc'; there are method, nll, n"):
        _ = table.acc
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.columns = {}


def test_a_table_in_letters() -> None:
    assert str(EXAMPLES["Table"][0]).splitlines() == [
        "method     nll  n",
        "SGD     0.5000  1",
        "SWA     0.2500  2",
    ]
    assert str(Table({})) == ""
    assert str(Table({"a": torch.tensor([math.nan])})).split() == ["a", "nan"]


def test_a_table_as_a_frame() -> None:
    frame = EXAMPLES["Table"][0].to_pandas()
    assert list(frame.columns) == ["method", "nll", "n"]
    assert frame.nll.tolist() == [0.5, 0.25]
    assert frame.method.tolist() == ["SGD", "SWA"]
    assert list(Table({"a": torch.zeros(0)}).to_pandas().columns) == ["a"]


def test_a_table_of_rows_gives_the_rows() -> None:
    rows = [{"a": 1.5, "of": "x"}, {"a": 2.0, "of": "y"}]
    assert list(Table.from_rows(rows).rows()) == rows
    holes = Table.from_rows([{"a": 1}, {"of": "y", "b": 3.0}])
    assert holes.of == ["", "y"]  # as strings, though the first row has none
    assert holes.a.dtype == torch.float64
    assert holes.a.isnan().tolist() == [False, True]
    assert holes.b.isnan().tolist() == [True, False]
    assert len(Table.from_rows([])) == 0


def test_a_table_as_markdown_and_as_comma_separated_values() -> None:
    table = Table(
        {"method": ["a|b", "c,d"], "nll": torch.tensor([0.1, math.nan], dtype=torch.float64)}
    )
    assert table.to_markdown().splitlines() == [
        "| method | nll |",
        "| --- | ---: |",
        "| a\\|b | 0.1000 |",
        "| c,d | nan |",
    ]
    assert table.to_csv() == 'method,nll\na|b,0.1\n"c,d",nan\n'
    pandas = pytest.importorskip("pandas")
    read = pandas.read_csv(io.StringIO(table.to_csv()))
    pandas.testing.assert_frame_equal(read, table.to_pandas())


def test_a_table_for_readers_has_errors_behind_their_means() -> None:
    table = Table(
        {
            "method": ["SGD", "SWA"],
            "nll": torch.tensor([0.5, math.nan], dtype=torch.float64),
            "nll_se": torch.tensor([0.125, math.nan], dtype=torch.float64),
            "samples": torch.tensor([1.0, 30.0], dtype=torch.float64),
            "samples_se": torch.zeros(2, dtype=torch.float64),
            "decay": torch.tensor([123456.0, 0.25], dtype=torch.float64),
        }
    )
    assert list(table.to_texts().rows()) == [
        {"method": "SGD", "NLL": "0.5000 ± 0.1250", "samples": "1", "decay": "1.235e+05"},
        {"method": "SWA", "NLL": "-", "samples": "30", "decay": "0.25"},
    ]
    texts = table.to_texts({"nll": ("nats", "{:+.2f}")})
    assert texts.columns == {"nats": ["+0.50 ± 0.12", "-"]}
    assert texts.to_markdown().splitlines()[1] == "| ---: |"
    assert texts.to_latex().splitlines()[4] == r"$+0.50 \pm 0.12$ \\"


def test_a_table_for_latex_aligns_numbers_right() -> None:
    table = EXAMPLES["Table"][0]
    assert table.to_latex().splitlines()[:3] == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"method & nll & n \\",
    ]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(5.9181, 0.035214, "5.918 ± 0.035"), (51234.0, 1234.5, "5.123e+04 ± 1200"), (2.5, 0.0, "2.5")],
)
def test_errors_of_significant_digits_have_two(value: float, error: float, text: str) -> None:
    table = Table.from_rows([{"scale": value, "scale_se": error}])
    assert table.to_texts({"scale": ("scale", "{:.4g}")}).scale == [text]
