"""Progress: a callable, a bar, or nothing."""

import sys

import pytest

import lowland as ll
from lowland.progress import reporting


def test_a_callable_gets_what_is_done():
    seen = []
    with reporting(lambda done, total: seen.append((done, total)), "work") as report:
        report(1, 4)
        report(2, None)
    assert seen == [(1, 4), (2, None)]


def test_nothing_is_written_unless_it_is_asked_for(capfd):
    with reporting(False, "work") as report:
        report(1, 4)
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_drawn_on_standard_error(capfd):
    with reporting(True, "work") as report:
        report(1, 4)
        report(4, 4)
    out, err = capfd.readouterr()
    assert out == ""
    assert "work" in err
    assert "4/4" in err


def test_without_rich_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(ll.LowlandError, match=r'pip install "lowland\[cli\]", or pass a callable'):
        reporting(True, "work").__enter__()


def test_an_error_inside_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError), reporting(True, "work"):
        _ = 1 / 0
