"""The room as a whole: its registry, what it imports, and files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lowland import plots, records
from lowland.errors import ConfigError
from lowland.plots.labels import spread
from lowland.records import Record, Table

TABLE = Table({"nll": torch.tensor([0.5, 0.25])})
HELPERS = {"__init__", "labels", "overlays", "panels", "scales", "shading", "style"}


def test_every_file_has_its_line():
    files = {path.stem for path in Path(plots.__file__).parent.glob("*.py")}
    assert set(plots.FIGURES) == files - HELPERS
    for name, function in plots.FIGURES.items():
        assert getattr(plots, name) is function
        assert function.__doc__


def test_every_record_has_its_figure():
    kinds = [kind for kind in vars(records).values() if isinstance(kind, type)]
    figures = {kind.figure for kind in kinds if issubclass(kind, Record)} - {""}
    assert figures <= set(plots.FIGURES)
    assert TABLE.plot().get_xlabel() == "nll"


def test_every_figure_has_its_contract():
    tests = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert {f"test_{name}" for name in plots.FIGURES} <= tests


def test_an_unknown_figure_names_those_there_are():
    with pytest.raises(ConfigError, match=r"expected one of .*table.*, got 'pie'"):
        plots.draw("pie", TABLE)


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


def test_labels_move_as_little_as_possible():
    assert spread([], gap=1.0) == []
    assert spread([3.0, 0.0], gap=1.0) == [3.0, 0.0]
    np.testing.assert_allclose(spread([5.0, 5.0, 5.0], gap=1.0), [4.0, 5.0, 6.0])
    positions = np.random.default_rng(0).uniform(0, 20, 15)
    moved = np.array(spread(list(positions), gap=1.0))
    assert np.diff(np.sort(moved)).min() > 1 - 1e-9
    assert (np.argsort(moved) == np.argsort(positions)).all()
    np.testing.assert_allclose(moved.mean(), positions.mean())
