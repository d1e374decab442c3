"""The room as a whole: its registry, what it imports, and files."""

from pathlib import Path

import pytest
import torch

from lowland import plots, records
from lowland.errors import ConfigError
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
    names = {kind.figure for kind in kinds if issubclass(kind, Record)} - {""}
    assert names <= set(plots.FIGURES)
    assert TABLE.plot().get_xlabel() == "nll"


def test_every_figure_has_its_contract():
    tests = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert {f"test_{name}" for name in plots.FIGURES} <= tests


def test_an_unknown_figure_names_those_there_are():
    with pytest.raises(ConfigError, match=r"expected one of .*table.*, got 'pie'"):
        plots.draw("pie", TABLE)
