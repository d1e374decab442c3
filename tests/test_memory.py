"""Freed memory is kept with glibc; there is no effect with other C libraries."""

import ctypes
import sys

import pytest

from lowland.memory import keep_freed_memory


class Library:
    """A fake glibc that stores its options."""

    def __init__(self, answer=1):
        self.answer, self.options = answer, {}

    def mallopt(self, option, value):
        self.options[option] = value
        return self.answer


@pytest.fixture
def linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    return monkeypatch


@pytest.mark.parametrize("answer", [0, 1])
def test_both_thresholds_are_raised_and_a_failure_is_returned(linux, answer):
    library = Library(answer)
    linux.setattr(ctypes, "CDLL", lambda _: library)
    assert keep_freed_memory() is bool(answer)
    assert library.options[-3] == 2**30  # M_MMAP_THRESHOLD of malloc.h
    if answer:
        assert library.options[-1] == 2**31 - 1  # M_TRIM_THRESHOLD


def test_no_effect_with_another_library_or_system(linux):
    linux.setattr(ctypes, "CDLL", lambda _: object())  # musl has no mallopt
    assert keep_freed_memory() is False

    def missing(_):
        raise OSError("no such library")

    linux.setattr(ctypes, "CDLL", missing)
    assert keep_freed_memory() is False
    linux.setattr(sys, "platform", "darwin")
    linux.setattr(ctypes, "CDLL", lambda _: pytest.fail("asked"))
    assert keep_freed_memory() is False
