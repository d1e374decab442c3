"""Progress: a callable, a bar, or nothing."""

import sys

import pytest

import lowland as ll
from lowland.progress import reporting


def test_a_callable_gets_the_steps_and_the_total():
    reports = []
    with reporting(lambda done, total: reports.append((done, total)), "work") as report:
        report(1, 4)
        report(2, None)
    assert reports == [(1, 4), (2, None)]


def test_no_bar_by_default(capfd):
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


def test_without_rich_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(ll.LowlandError, match=r'pip install "lowland\[cli\]", or pass a callable'):
        reporting(True, "work").__enter__()


def test_errors_inside_are_unchanged():
    with pytest.raises(ZeroDivisionError), reporting(True, "work"):
        _ = 1 / 0
