"""What an artifact was built from, and checksums of its files."""

import json
import re

import pytest

from lowland.artifacts.manifest import MANIFEST, TIMING, Manifest, hash_of, seconds_of
from lowland.errors import StoreError
from tests.artifacts.toys import Number, Sum


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "b.txt").write_text("four")
    (tmp_path / "number.json").write_text("1")
    for name in (TIMING, ".hidden"):
        (tmp_path / name).write_text("{}")
    total = Sum("sum/a", Number("number/a", 1))
    return Manifest.write(total, tmp_path, requested=[Number("number/extra", 3)])


def test_it_lists_files_inputs_and_what_was_requested(manifest):
    body = manifest.body
    assert list(body["files"]) == ["number.json", "parts/b.txt"]
    assert manifest.size == 1 + 4
    assert body["inputs"] == {"number/a": Number("number/a", 1).fingerprint}
    assert list(body["requested"]) == ["number/extra"]
    assert Manifest.read(manifest.folder).body == body


@pytest.mark.parametrize(
    ("text", "content", "words"),
    [
        (None, False, r"parts/b\.txt is missing"),
        ("longer text", False, "has 11 bytes, not 4"),
        ("five", True, r"parts/b\.txt is not what was written"),
    ],
)
def test_damage_is_named(manifest, text, content, words):
    file = manifest.folder / "parts" / "b.txt"
    assert manifest.damage(content=True) is None
    file.unlink() if text is None else file.write_text(text)
    assert re.search(words, manifest.damage(content=content))


def test_an_edit_of_equal_size_shows_in_checksums_alone(manifest):
    (manifest.folder / "parts" / "b.txt").write_text("five")
    assert manifest.damage(content=False) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "lowland-artifact-9"}, "its format is 'lowland-artifact-9'"),
        ({"files": {"../b": {"size": 1, "blake2b": ""}}}, "no file in it"),
        ({"version": "one"}, "version: expected int"),
    ],
)
def test_other_manifests_are_refused(manifest, change, words):
    (manifest.folder / MANIFEST).write_text(json.dumps(manifest.body | change))
    with pytest.raises(StoreError, match=words):
        Manifest.read(manifest.folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"it holds no manifest\.json; delete it"):
        Manifest.read(tmp_path)


def test_checksums_and_seconds_are_read_from_files(tmp_path):
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    assert hash_of(tmp_path / "a") != hash_of(tmp_path / "b")
    assert len(hash_of(tmp_path / "a")) == 32
    assert seconds_of(tmp_path) is None
    (tmp_path / TIMING).write_text(json.dumps({"seconds": 2.5}))
    assert seconds_of(tmp_path) == 2.5
    (tmp_path / TIMING).write_text(json.dumps({"minutes": 1}))
    assert seconds_of(tmp_path) is None
