"""YAML files of run folders, which may come from elsewhere."""

import math
from typing import Any, TypedDict

import pytest

from lowland.errors import StoreError
from lowland.runs.stored import MAX_YAML, read_yaml, write_yaml


class Form(TypedDict):
    settings: dict[str, Any]


OPTIONS = {"form": "toy-2", "advice": "delete it"}


def test_what_is_written_is_read(tmp_path):
    body = {"settings": {"lr": 1e-4, "far": math.inf, "table": {0: 1}, "twice": [[1], [1]]}}
    write_yaml(tmp_path / "a.yaml", body, form="toy-2")
    assert read_yaml(tmp_path / "a.yaml", Form, **OPTIONS) == body


def test_one_value_in_two_places_is_written_without_an_alias(tmp_path):
    shared = [1, 2]
    write_yaml(tmp_path / "a.yaml", {"settings": {"a": shared, "b": shared}}, form="toy-2")
    assert "&" not in (tmp_path / "a.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("format: toy-1\nsettings: {}", "its format is 'toy-1', this version of lowland reads"),
        ("settings: &a [*a]", "alias"),
        ("settings: 3", "settings: expected dict.*; delete it"),
        ("x: " + "a" * MAX_YAML, "larger than"),
        ("{", "damaged .*; delete it"),
    ],
)
def test_other_files_are_refused(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(StoreError, match=words):
        read_yaml(tmp_path / "a.yaml", Form, **OPTIONS)


def test_settings_that_are_too_long_are_refused(tmp_path):
    with pytest.raises(StoreError, match="put long arguments into a file"):
        write_yaml(tmp_path / "a.yaml", {"settings": {"a": "a" * MAX_YAML}}, form="toy-2")
    assert not (tmp_path / "a.yaml").exists()
