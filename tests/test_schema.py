"""Forms of stored text: values that fit, and errors for others."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

import pytest
import torch

from lowland import StoreError
from lowland.files import write_json
from lowland.schema import MAX_DEPTH, mismatch, parse_json, read_json, require


@dataclass
class Step:
    number: int
    loss: float = 0.0


class Header(TypedDict):
    format: Literal["demo-1"]
    steps: NotRequired[list[Step]]


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (3, int),
        (3, float),  # JSON does not distinguish 3.0 from 3
        (math.inf, float),
        (-(2**63), int),
        (None, int | None),
        ("b", Literal["a", "b"]),
        ([], list[int]),
        ([1, "a"], tuple[int, str]),
        ((1, 2, 3), tuple[int, ...]),
        ({"a": {"b": [1.5]}}, dict[str, dict[str, list[float]]]),
        ({"number": 3}, Step),
        ({"format": "demo-1"}, Header),
        ({"format": "demo-1", "steps": [{"number": 1, "loss": 2}]}, Header),
        (torch.ones(2), torch.Tensor),
        (object(), Any),
    ],
)
def test_values_that_fit(value, form):
    assert mismatch(value, form) is None


@pytest.mark.parametrize(
    ("value", "form", "words"),
    [
        (True, int, "expected int, got True"),
        (True, float, "expected float, got True"),
        (1.0, int, "expected int, got 1.0"),
        (2**63, int, "expected int, got a larger number"),
        ("\ud800", str, "expected str"),  # half a surrogate pair
        (1, Literal["a"], "expected Literal['a'], got 1"),
        (True, Literal["a", 2], "got True"),
        ([1, "a"], list[int], "[1]: expected int, got 'a'"),
        ([1], tuple[int, str], "expected tuple[int, str], got [1]"),
        ([1, 2], tuple[int, str], "[1]: expected str, got 2"),
        ({1: 2}, dict[str, int], "a key: expected str, got 1"),
        ({"a": {"b": []}}, dict[str, dict[str, int]], "a.b: expected int, got []"),
        ({"a": 1.5}, dict[str, int | str], "a: expected int | str, got 1.5"),
        ({"a": [1, "x"]}, dict[str, list[int] | None], "a[1]: expected int, got 'x'"),
        ([1], Step, "expected fields by name, got [1]"),
        ({}, Step, "of another version of lowland (no field 'number')"),
        ({"number": 1, "rate": 2}, Step, "of another version of lowland (unknown field 'rate')"),
        (
            {"format": "demo-1", "steps": [{"number": 1}, {"number": None}]},
            Header,
            "steps[1].number: expected int, got None",
        ),
        ({"format": "demo-2"}, Header, "format: expected Literal['demo-1'], got 'demo-2'"),
        ({"step": list(range(9))}, dict[str, int], "step: expected int, got a list of 9"),
        ({"step": "x" * 500}, dict[str, int], "..."),
    ],
)
def test_values_that_do_not_fit_are_named_with_their_place(value, form, words):
    message = mismatch(value, form)
    assert words in message
    assert len(message) < 200
    with pytest.raises(StoreError) as caught:
        require(value, form, source="a.json", advice="make it anew")
    assert str(caught.value) == f"a.json: {message}; make it anew."


def test_texts_have_limits():
    for value in ({"a": [1, None, "x", 1.5]}, [[[]]], "text"):
        assert parse_json(json.dumps(value), source="a.json") == value
    nested = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    parse_json(nested, source="a.json")
    for deep in (f"[[{nested}]]", "[" * 100_000, '{"a":' * 200 + "1" + "}" * 200):
        with pytest.raises(StoreError, match=r"a\.json: nested deeper than 100 levels"):
            parse_json(deep, source="a.json")
    with pytest.raises(StoreError, match="damaged, or no JSON"):
        parse_json("{'a': 1}", source="a.json")


def test_a_text_that_is_too_large_is_not_parsed(monkeypatch):
    monkeypatch.setattr("lowland.schema.MAX_TEXT", 10)
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("parsed"))
    with pytest.raises(StoreError, match="12 bytes of text, more than 10"):
        parse_json("[1, 2, 3, 4]", source="a.json")


def test_a_json_file_has_a_form_and_a_version(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"format": "a-2", "step": 3})
    form = dict[str, int | str]
    assert read_json(file, form) == read_json(file, form, version="a-2")
    with pytest.raises(StoreError, match=r"a\.json: its format is 'a-2'.* reads 'a-1'; make"):
        read_json(file, form, version="a-1", advice="make another")
    with pytest.raises(StoreError, match=r"a\.json: format: expected int, got 'a-2'"):
        read_json(file, dict[str, int])
    file.write_text("[")
    with pytest.raises(StoreError, match=r"a\.json: damaged"):
        read_json(file, form)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json", form)
