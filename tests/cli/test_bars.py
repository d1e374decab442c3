"""Progress on a terminal is a bar for each title; in a file it is a line now and then."""

import re
from types import SimpleNamespace

import pytest

from lowland.cli.bars import Bars
from lowland.cli.console import Terminal, visible
from tests.artifacts.toys import Number
from tests.cli.terminal import HOSTILE, assert_shown_as_it_is, output_of


class Quick(Number):
    quick = True


def titled(name: str) -> Number:
    artifact = Number(name, 1)
    artifact.title = "training"
    return artifact


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_they_are(name: str) -> None:
    out = assert_shown_as_it_is(name, lambda console: Bars(console).add(name)(1, 1))
    assert visible(name) in out


@pytest.mark.parametrize("name", HOSTILE)
def test_bars_on_a_terminal(name: str) -> None:
    def write(console: Terminal) -> None:
        with Bars(console) as bars:
            bars.add(name)(1, 2)

    out = output_of(write, 120, force_terminal=True, color_system=None)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out)
    assert visible(name) in plain
    assert "50%" in plain
    assert "\x1b[31m" not in out


def test_a_file_has_a_line_after_a_while_and_one_at_the_end(monkeypatch) -> None:
    times = iter([0.0, 29.0, 30.0, 59.0, 61.0, 62.0, 63.0])
    clock = SimpleNamespace(monotonic=lambda: next(times))
    monkeypatch.setattr("lowland.cli.bars.time", clock)

    def write(console: Terminal) -> None:
        report = Bars(console).add("training")
        for done in (1, 2, 3, 4, 5, 5):  # the last twice
            report(done, 5)

    assert output_of(write).splitlines() == [
        "training: 2 of 5, 30 s",
        "training: 4 of 5, 61 s",
        "training: 5 of 5, 62 s",
    ]


def test_artifacts_of_one_title_share_a_bar_and_quick_ones_have_none() -> None:
    def write(console: Terminal) -> None:
        bars = Bars(console)
        assert bars.of(titled("a")) is bars.of(titled("b"))
        assert bars.of(titled("a")) is not bars.of(Number("a", 1))
        bars.of(Quick("c", 3))(1, 1)

    assert output_of(write) == ""
