import json
import re
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from lowland import (
    ConfigError,
    LayoutError,
    NonFiniteError,
    ParamLayout,
    Point,
    StoreError,
    Trajectory,
)
from lowland.tensor_files import same_tree
from tests.trajectory.nets import Net, stepped


def filled(path, n=3):
    model = Net()
    store = Trajectory.create(path, ParamLayout(model))
    for i in range(n):
        store.append(stepped(model, i), step=10 * (i + 1), metrics={"loss": i / 3})
    return store


@cache
def expected_point(i):
    """Iterate i of `filled`."""
    model = stepped(Net(), i)
    return Point(ParamLayout(model).flatten(model), dict(model.named_buffers()))


def check_iterates(store, n):
    """The store holds the first n iterates of `filled`, bit by bit."""
    assert len(store) == n
    assert store.steps == [10 * (i + 1) for i in range(n)]
    assert store.metrics == [{"loss": i / 3} for i in range(n)]
    for i, point in enumerate(store):
        expected = expected_point(i)
        assert torch.equal(point.weights, expected.weights)
        assert same_tree(point.buffers, expected.buffers)


def append_the_rest(store, n=5):
    model = Net()
    for i in range(len(store), n):
        store.append(stepped(model, i), step=10 * (i + 1), metrics={"loss": i / 3})


def files(path):
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


def test_what_is_appended_comes_back(tmp_path):
    store = filled(tmp_path / "run")
    check_iterates(store, 3)
    check_iterates(Trajectory.open(tmp_path / "run"), 3)
    assert Trajectory.open(tmp_path / "run").layout.fingerprint == ParamLayout(Net()).fingerprint
    assert files(tmp_path / "run") == [
        "000000.safetensors",
        "000001.safetensors",
        "000002.safetensors",
        "journal.jsonl",
    ]


def test_it_is_a_sequence(tmp_path):
    store = filled(tmp_path / "run")
    assert torch.equal(store[-1].weights, store[2].weights)
    assert len(list(store)) == 3
    for i in (3, -4):
        with pytest.raises(IndexError, match=f"iterate {i} of 3"):
            store[i]
    assert "3 iterates" in repr(store)


def test_iterates_are_mapped_and_the_readers_own(tmp_path):
    store = filled(tmp_path / "run")
    store[1].weights.zero_()  # private: neither the file nor the next reader sees it
    check_iterates(store, 3)
    check_iterates(Trajectory.open(tmp_path / "run", recover=True), 3)


def test_bfloat16_models_are_kept_in_float32(tmp_path):
    model = nn.Linear(3, 2, dtype=torch.bfloat16)
    store = Trajectory.create(tmp_path / "run", ParamLayout(model))
    store.append(model, step=1)
    assert store[0].weights.dtype == torch.float32
    assert torch.equal(store[0].weights, store.layout.flatten(model))


def test_wrapped_models_and_flat_vectors_may_be_mixed(tmp_path):
    model = stepped(Net(), 0)
    store = Trajectory.create(tmp_path / "run", ParamLayout(model))
    store.append(nn.DataParallel(model), step=1)
    store.append(store.layout.flatten(model).double(), step=2)
    store.append(store[0], step=3)
    store.append(store.layout.flatten(model).requires_grad_(), step=4)
    assert {"norm.running_mean", "norm.running_var"} < store[0].buffers.keys()
    assert not store[1].buffers
    assert store[2].buffers.keys() == store[0].buffers.keys()
    for i in range(4):
        assert torch.equal(store[i].weights, store.layout.flatten(model))


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path):
    store = Trajectory.create(tmp_path / "run", ParamLayout(nn.Linear(1, 1)))
    metrics = {"a": np.float32(0.5), "b": torch.tensor(2.0), "c": float("nan")}
    store.append(torch.zeros(2), step=np.int64(3), metrics=metrics)
    again = Trajectory.open(tmp_path / "run")
    assert again.steps == [3]
    assert again.metrics[0]["a"] == 0.5
    assert again.metrics[0]["b"] == 2.0
    assert again.metrics[0]["c"] != again.metrics[0]["c"]


def test_what_is_appended_is_a_copy(tmp_path):
    w = torch.ones(2)
    store = Trajectory.create(tmp_path / "run", ParamLayout(nn.Linear(1, 1)))
    store.append(w, step=1)
    w.zero_()
    assert store[0].weights.tolist() == [1, 1]


# -- what is refused -------------------------------------------------------------------------------


def test_an_iterate_that_is_not_finite_leaves_the_store_as_it_was(tmp_path):
    store = filled(tmp_path / "run")
    before = {f: (tmp_path / "run" / f).read_bytes() for f in files(tmp_path / "run")}
    model = stepped(Net(), 3)
    with torch.no_grad():
        model.last.bias[0] = float("nan")
    with pytest.raises(
        NonFiniteError, match=r"step 40 .*last\.bias.*last iterate stored is step 30"
    ):
        store.append(model, step=40)
    assert {f: (tmp_path / "run" / f).read_bytes() for f in files(tmp_path / "run")} == before
    append_the_rest(store)
    check_iterates(Trajectory.open(tmp_path / "run"), 5)


def test_steps_go_up(tmp_path):
    store = filled(tmp_path / "run")
    for step in (30, 29, -1):
        with pytest.raises(StoreError, match=f"step {step} is not after step 30"):
            store.append(Net(), step=step)
    with pytest.raises(ConfigError, match=r"step: expected a whole number, got 31\.5"):
        store.append(Net(), step=31.5)
    check_iterates(Trajectory.open(tmp_path / "run"), 3)


def test_weights_of_another_model_are_refused(tmp_path):
    store = filled(tmp_path / "run")
    with pytest.raises(LayoutError, match=r"first.weight expected \(4, 5\), got \(4, 6\)"):
        store.append(Net(features=6), step=40)
    with pytest.raises(LayoutError, match=r"got \(3,\)"):
        store.append(torch.zeros(3), step=40)
    with pytest.raises(LayoutError, match=r"the iterates in .*run come from another model"):
        Trajectory.open(tmp_path / "run", layout=ParamLayout(Net(features=6)))
    check_iterates(Trajectory.open(tmp_path / "run", layout=ParamLayout(Net())), 3)


def test_a_folder_that_holds_something_is_not_made_into_a_store(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not empty"):
        Trajectory.create(tmp_path, ParamLayout(Net()))
    with pytest.raises(StoreError, match="is not empty"):
        Trajectory.create(tmp_path / "notes.txt", ParamLayout(Net()))
    with pytest.raises(StoreError, match=r"open it with Trajectory\.open"):
        Trajectory.create(filled(tmp_path / "run").path, ParamLayout(Net()))
    (tmp_path / "empty").mkdir()
    assert len(Trajectory.create(tmp_path / "empty", ParamLayout(Net()))) == 0


def test_other_folders_and_files_are_no_store(tmp_path):
    with pytest.raises(StoreError, match=r"journal.jsonl is missing"):
        Trajectory.open(tmp_path)
    for content in (b"", b"\n", b"{}\n", b"\x00\xff" * 40, b'deadbeef {"format": 1}\n'):
        (tmp_path / "journal.jsonl").write_bytes(content)
        for recover in (False, True):
            with pytest.raises(StoreError, match=r"journal.jsonl: its first line"):
                Trajectory.open(tmp_path, recover=recover)
        assert files(tmp_path) == ["journal.jsonl"]


def test_two_writers_do_not_write_over_one_another(tmp_path):
    first = filled(tmp_path / "run")
    second = Trajectory.open(tmp_path / "run")
    append_the_rest(second)
    for work in (
        lambda: first.append(stepped(Net(), 77), step=77),
        lambda: first.rewind(10),
    ):
        with pytest.raises(StoreError, match="another process writes to it"):
            work()
    check_iterates(Trajectory.open(tmp_path / "run"), 5)


# -- rewind ----------------------------------------------------------------------------------------


def test_rewind_forgets_what_came_later(tmp_path):
    path = tmp_path / "run"
    store = filled(path, 5)
    store.rewind(50)
    store.rewind(1000)
    check_iterates(store, 5)
    store.rewind(35)
    check_iterates(store, 3)
    assert len(files(path)) == 4
    check_iterates(Trajectory.open(path), 3)
    append_the_rest(store)
    check_iterates(Trajectory.open(path), 5)
    store.rewind(0)
    assert len(Trajectory.open(path)) == len(store) == 0
    append_the_rest(store, 2)
    check_iterates(Trajectory.open(path), 2)


def test_the_journal_is_readable_by_others(tmp_path):
    filled(tmp_path / "run", 1)
    header, line, rest = (tmp_path / "run" / "journal.jsonl").read_text().split("\n")
    assert rest == ""
    assert json.loads(header[9:])["format"] == "lowland-trajectory-1"
    assert json.loads(line[9:])["step"] == 10
    assert re.fullmatch(r"[0-9a-f]{8}", line[:8])
