"""Errors of code that is no part of the library."""

import sys

import pytest

from lowland.errors import ConfigError
from lowland.runs.user_code import error_line, is_project, one_line, raised_by_user


def caught(function):
    with pytest.raises(Exception) as error:  # noqa: PT011
        function()
    return error.value


def fails():
    raise ValueError("two\nlines")


def test_an_error_is_one_line_with_its_place_in_the_users_code():
    line = error_line(caught(fails))
    assert line.startswith("ValueError: two lines (")
    assert f"{__file__}, line " in line


def test_an_error_of_the_library_is_its_message():
    assert error_line(ConfigError("lr: expected a number.")) == "lr: expected a number."


def test_errors_are_told_apart_by_who_raised_them():
    assert raised_by_user(caught(fails))
    assert not raised_by_user(ValueError("never raised"))


def test_a_project_is_no_installed_package():
    assert is_project(__file__)
    assert not is_project(pytest.__file__)
    assert not is_project(sys.modules["json"].__file__)
    assert not is_project("<string>")


def test_line_breaks_are_spaces():
    assert one_line(ValueError("a\n  b")) == "a b"
