"""Every error is a LowlandError and an instance of a Python exception."""

import copy
import inspect
import pickle

import pytest

import lowland as ll
from lowland import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_caught_as_lowlands_and_keeps_its_words(kind):
    assert issubclass(kind, errors.LowlandError)
    error = kind("bends: expected 1, got 2.")
    assert str(error) == "bends: expected 1, got 2."
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # as between workers
        assert type(twin) is kind
        assert str(twin) == str(error)


@pytest.mark.parametrize(
    ("kind", "python_error"),
    [
        (errors.LayoutError, ValueError),
        (errors.DataError, ValueError),
        (errors.NonFiniteError, ArithmeticError),
        (errors.StoreError, OSError),
        (errors.ConfigError, ValueError),
        (errors.ArgumentError, TypeError),
    ],
)
def test_an_error_has_the_python_class(kind, python_error):
    assert issubclass(kind, python_error)
    assert getattr(ll, kind.__name__, kind) is kind


def test_no_other_kind_is_lost_among_them():
    assert len(KINDS) == 7
    assert issubclass(errors.ArgumentError, errors.ConfigError)
