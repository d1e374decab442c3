"""What every figure promises. Inherit, name the figure, give a record; add what is its own."""

from __future__ import annotations

import sys
from dataclasses import fields
from functools import lru_cache
from itertools import combinations
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lowland import plots
from lowland.plots.overlays import settle
from lowland.records import Record


class FigureContract:
    figure: str

    def record(self) -> Any:
        """A record as runs give it."""
        raise NotImplementedError

    def odd_records(self) -> dict[str, Any]:
        """Records at the border of what can be drawn, by name."""
        return {}

    def axes(self) -> Axes:
        """Axes of the user's."""
        return Figure().add_subplot()

    def draw(self, record: Any, **options: Any) -> Axes:
        return plots.draw(self.figure, record, **options)

    def pictures(self) -> dict[str, Axes]:
        """The pictures of all records."""
        return pictures_of(type(self))

    def test_draws_on_the_axes_that_it_gets_and_returns_them(self):
        ax = self.axes()
        assert self.draw(self.record(), ax=ax) is ax
        assert ax.has_data()
        assert ax.get_xlabel()

    def test_makes_axes_of_its_own_outside_pyplot(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
        ax = self.draw(self.record())
        assert ax.figure is not self.pictures()[""].figure
        assert ax.figure.axes == [ax]

    def test_leaves_record_and_settings_alone(self):
        record = self.record()
        before = tree(record)
        with matplotlib.rc_context({"font.size": 7.0, "text.color": "red"}):
            mine = settings()
            self.draw(record)
            assert settings() == mine
        np.testing.assert_equal(tree(record), before)

    def test_its_texts_lie_inside_the_picture_and_apart(self):
        for ax in self.pictures().values():
            assert_readable(ax)

    def test_nothing_of_it_is_cut_off(self):
        for name, ax in self.pictures().items():
            assert_whole(ax, name)

    def test_a_picture_of_it_can_be_written_without_pyplot(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
        path = plots.save(self.pictures()[""], tmp_path / "picture.png", dpi=50)
        assert path.read_bytes().startswith(b"\x89PNG")

    def test_unknown_options_raise(self):
        with pytest.raises(TypeError, match="colour"):
            self.draw(self.record(), colour="red")


@lru_cache(maxsize=1)  # those of the class whose tests run: figures are large
def pictures_of(tests: type[FigureContract]) -> dict[str, Axes]:
    """The pictures of all records of a contract, drawn once."""
    contract = tests()
    records = {"": contract.record()} | contract.odd_records()
    return {name: contract.draw(record) for name, record in records.items()}


def tree(node: Any) -> Any:
    """A copy of the contents of a record, or of a dict of records, with arrays for tensors."""
    if isinstance(node, Record):
        return tree({f.name: getattr(node, f.name) for f in fields(node)})  # what it caches is none
    if isinstance(node, dict):
        return {name: tree(value) for name, value in node.items()}
    return node.clone().numpy() if isinstance(node, Tensor) else node


def settings() -> dict[str, Any]:
    """The global settings, but for the backend: asking for that one would choose it."""
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}


def lay_out(ax: Axes) -> None:
    """Places everything in the figure as a drawing would, unless it lies there already."""
    if ax.figure.stale:
        settle(ax)
        ax.figure.stale = False


def assert_whole(ax: Axes, name: str) -> None:
    """Axes, with their texts and legend, lie inside the figure."""
    lay_out(ax)
    box, whole = ax.get_tightbbox(), ax.figure.bbox
    assert box is not None
    assert -1 < box.x0 < box.x1 < whole.x1 + 1, name  # pixels
    assert -1 < box.y0 < box.y1 < whole.y1 + 1, name


def assert_readable(ax: Axes) -> None:
    """No text of the axes leaves the figure, and no two overlap."""
    lay_out(ax)
    boxes = {text.get_text(): text.get_window_extent() for text in ax.texts}
    whole = ax.figure.bbox
    for text, box in boxes.items():
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0 < box.y1 <= whole.y1, text
    for one, other in combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one, other)
