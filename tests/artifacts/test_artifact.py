"""Fingerprints, folder names, and inputs that are loaded when they are needed."""

import pytest

from lowland.artifacts import Inputs, Source
from lowland.artifacts.artifact import digest, folder_name
from tests.artifacts.toys import Number, Sum


def test_a_fingerprint_changes_with_kind_version_settings_and_inputs(monkeypatch):
    one, other = Number("number/a", 1), Number("number/a", 2)
    assert one.fingerprint == Number("number/b", 1).fingerprint  # the name is no part of it
    prints = [one.fingerprint, other.fingerprint, Sum("sum", one).fingerprint]
    prints.append(Sum("sum", other).fingerprint)
    monkeypatch.setattr(Number, "version", 2)
    prints.append(Number("number/a", 1).fingerprint)
    monkeypatch.setattr(Number, "kind", "other number")
    prints.append(Number("number/a", 1).fingerprint)
    assert len(set(prints)) == len(prints)


def test_inputs_that_come_twice_are_one():
    number = Number("number/a", 1)
    assert Sum("sum", number, number).inputs == (number,)


def test_inputs_are_loaded_once_and_when_they_are_read():
    loads = []
    artifacts = [Number("number/a", 1), Number("number/b", 2)]

    def load(artifact):
        loads.append(artifact.name)
        return artifact.settings.value

    inputs = Inputs(artifacts, load)
    assert (list(inputs), len(inputs), loads) == (["number/a", "number/b"], 2, [])
    assert inputs["number/b"] + inputs["number/b"] == 4
    assert loads == ["number/b"]
    extra = Number("number/extra", 3)
    assert inputs.request(extra) == 3
    assert inputs.requested == [extra]


def test_a_source_is_loaded_and_never_built(tmp_path):
    source = Source("data/train", 100, {"examples": "all"})
    assert source.load(tmp_path) == 100
    assert source.values() == {"examples": "all"}
    assert source.fingerprint != Source("data/train", 100, {"examples": "some"}).fingerprint
    with pytest.raises(AssertionError, match="never built"):
        source.build({}, None, None)
    with pytest.raises(AssertionError, match="never saved"):
        source.save(1, tmp_path)


def test_names_become_folders_that_any_file_system_takes():
    for name in ("scan/sgd-0,sgd-1", "a" * 500, "../up", "ö/ä: b"):
        folder = folder_name(name, digest(name))
        assert len(folder) <= 73
        assert set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
        assert not folder.startswith(".")
