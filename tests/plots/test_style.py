"""The house style: figures are saved as their ending says, and colours are told apart."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lowland import plots
from lowland.errors import ConfigError, DataError
from lowland.plots import style
from lowland.records import Table

TABLE = Table({"nll": torch.tensor([0.5, 0.25])})


def test_matplotlib_is_imported_when_drawing_and_missed_politely():
    script = """
import sys, lowland.records as records
for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
    del sys.modules[name]
sys.modules["matplotlib"] = None
import torch
from lowland import plots
from lowland.errors import LowlandError
try:
    records.Table({"nll": torch.ones(2)}).plot()
except LowlandError as error:
    print(error)
try:
    records.SurfaceResult(torch.arange(2), torch.arange(2), {"loss": torch.rand(2, 2)}).plot()
except LowlandError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.count('pip install "lowland[plots]"') == 2


@pytest.mark.parametrize(
    ("name", "head"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a", b"\x89")]
)
def test_save_writes_what_the_ending_says(tmp_path, name, head):
    path = plots.save(TABLE.plot(), tmp_path / "new" / name, dpi=40)
    assert path.read_bytes().startswith(head)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.suffix in (".png", ".svg")


def test_save_takes_axes_and_figures_and_figures_inside_figures(tmp_path):
    figure = Figure(figsize=(2, 1))
    ax = TABLE.plot(ax=figure.subfigures(1, 2)[0].add_subplot())
    pictures = [
        plots.save(it, tmp_path / "a.png", dpi=40).read_bytes() for it in (figure, ax, ax.figure)
    ]
    assert pictures[0] == pictures[1] == pictures[2]


def test_save_refuses_unknown_endings_and_keeps_the_old_file_when_it_fails(tmp_path):
    with pytest.raises(ConfigError, match=r"picture\.doc: expected an ending of"):
        plots.save(TABLE.plot(), tmp_path / "picture.doc")
    path = plots.save(TABLE.plot(), tmp_path / "a.png", dpi=40)
    before = path.read_bytes()
    with pytest.raises((ValueError, MemoryError)):
        plots.save(TABLE.plot(), path, dpi=-1)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_lines_are_told_apart_by_colour_and_then_by_dashes():
    looks = [(style.colour(i), style.dashes(i)) for i in range(4 * len(style.PALETTE))]
    assert len(set(looks)) == len(looks)
    assert [dash for _, dash in looks[: len(style.PALETTE)]] == ["-"] * len(style.PALETTE)


def test_numbers_of_any_tensor_are_float64():
    tensor = torch.tensor([1.5, 2.5], dtype=torch.bfloat16, requires_grad=True)
    assert style.numbers(tensor).dtype == np.float64
    assert style.numbers(tensor).tolist() == [1.5, 2.5]


def test_one_record_has_no_name_and_none_raises():
    assert style.by_label(TABLE) == {"": TABLE}
    assert style.by_label({"SGD": TABLE}) == {"SGD": TABLE}
    with pytest.raises(DataError, match="got an empty dict"):
        style.by_label({})


def test_colours_are_those_of_the_map_from_end_to_end():
    found = style.colours_of("viridis", 3)
    np.testing.assert_allclose(found, matplotlib.colormaps["viridis"]([0.0, 0.5, 1.0]))
    with pytest.raises(ConfigError, match="got 'virid'"):
        style.colours_of("virid", 3)
