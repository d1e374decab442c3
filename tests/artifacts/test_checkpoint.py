"""The state of a long computation: written, gone on from, refused where it is of another."""

from typing import TypedDict

import pytest
import torch

from lowland.artifacts import Checkpoint
from lowland.artifacts.checkpoint import differences, require_same
from lowland.errors import ConfigError, StoreError
from lowland.tensor_files import load_tree, same_tree, save_tree

COUNT = {"kind": "count 2", "same": {"upto": 10, "train": {"lr": 0.1}}}


class State(TypedDict):
    """How far."""

    i: int


@pytest.fixture
def checkpoint(tmp_path):
    return Checkpoint(tmp_path / "state.safetensors")


def test_a_state_comes_back_bit_by_bit(checkpoint):
    state = {"i": 3, "w": torch.randn(5), 7: (1.5, None), "rows": [{"loss": float("inf")}]}
    assert not checkpoint.exists()
    checkpoint.save(state, **COUNT)
    assert checkpoint.exists()
    assert same_tree(checkpoint.load(**COUNT), state)
    assert same_tree(Checkpoint.of(str(checkpoint.path)).load(**COUNT), state)
    checkpoint.clear()
    assert not checkpoint.exists()
    assert checkpoint.load(**COUNT) is None


def test_without_a_path_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nothing = Checkpoint.of(None)
    nothing.save({"i": 3}, **COUNT)
    assert nothing.load(**COUNT) is None
    assert nothing.part("fit").path is None
    assert nothing.file("fit") is None
    nothing.clear()
    assert list(tmp_path.iterdir()) == []


def test_the_same_object_is_taken_as_it_is(checkpoint):
    assert Checkpoint.of(checkpoint) is checkpoint


@pytest.mark.parametrize(
    ("same", "message"),
    [
        ({"upto": 20, "train": {"lr": 0.1}}, r"\(upto: 10 there, 20 now\)"),
        ({"upto": 10, "train": {"lr": 0.2}}, r"\(train.lr: 0.1 there, 0.2 now\)"),
        ({"upto": 10}, r"\(train.lr: 0.1 there, absent now\)"),
        (COUNT["same"] | {"seed": None}, r"\(seed: absent there, None now\)"),
    ],
)
def test_a_state_of_other_settings_is_refused_by_name(checkpoint, same, message):
    checkpoint.save({"i": 3}, **COUNT)
    before = checkpoint.path.read_bytes()
    with pytest.raises(ConfigError, match=f"made with other settings {message}; name another"):
        checkpoint.load(kind="count 2", same=same)
    assert checkpoint.path.read_bytes() == before


def test_settings_in_tuples_are_those_in_lists(checkpoint):
    checkpoint.save(1, kind="count", same={"scales": [1, 2]})
    assert checkpoint.load(kind="count", same={"scales": (1, 2)}) == 1


def test_an_earlier_version_and_foreign_files_are_refused(checkpoint):
    checkpoint.save({"i": 3}, kind="count", same={})
    with pytest.raises(StoreError, match="expected count 2, found count; name another file"):
        checkpoint.load(**COUNT)
    checkpoint.path.write_text("text")
    with pytest.raises(StoreError, match="not a safetensors file"):
        checkpoint.load(**COUNT)


def test_forms_are_checked(checkpoint):
    checkpoint.save({"i": "three"}, **COUNT)
    with pytest.raises(StoreError, match="i: expected int, got 'three'"):
        checkpoint.load(**COUNT, form=State)
    body = load_tree(checkpoint.path, kind="count 2")
    save_tree(checkpoint.path, body | {"b": 1}, kind="count 2")
    with pytest.raises(StoreError, match="b"):  # of a later version
        checkpoint.load(**COUNT)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        Checkpoint(tmp_path)


def test_what_goes_wrong_when_a_state_is_taken_up_is_reported(checkpoint):
    with pytest.raises(StoreError, match=r"state.safetensors: no count 2 that .*KeyError"):  # noqa: SIM117
        with checkpoint.restoring("count 2"):
            {}["i"]


def test_parts_and_files_have_places_of_their_own(tmp_path, checkpoint):
    part = checkpoint.part("fit-2")
    part.save(1, kind="fit", same={})
    checkpoint.save(2, kind="growth", same={})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "state.safetensors",
        "state.safetensors.fit-2",
    ]
    checkpoint.clear()
    assert part.load(kind="fit", same={}) == 1  # a file of the user's: nothing beside it is touched
    within = Checkpoint.within(tmp_path / "artifact")
    within.part("fit-2").save(1, kind="fit", same={})
    within.file("seconds").write_text("3")
    within.clear()
    assert list((tmp_path / "artifact").iterdir()) == []


def test_differences_are_of_nested_keys_and_short():
    assert differences({}, {}) == []
    assert differences({"a": {"b": 1}}, {"a": {"b": 1}}) == []
    (one,) = differences({"a": "x" * 500}, {"a": 1}, words=("in r0", "in r1"))
    assert one.startswith("a: xxx")
    assert one.endswith("... in r0, 1 in r1")
    assert len(one) < 100
    (one,) = differences({"a": "x" * 500 + "8" + "y" * 99}, {"a": "x" * 500 + "9" + "y" * 99})
    assert "x8y" in one  # what differs is in it, however far behind
    assert "x9y" in one
    assert len(one) < 150


def test_require_same_names_the_place_and_what_to_do():
    require_same("a.scan", {"t": [0.0, 1.0]}, {"t": (0.0, 1.0)}, advice="name another file")
    with pytest.raises(ConfigError, match=r"^a.scan: made with other settings \(t: .*\); retry\.$"):
        require_same("a.scan", {"t": [0.0]}, {"t": [1.0]}, advice="retry")
