"""A process that is killed at any byte loses at most the iterate that it was writing."""

import os
import shutil
from contextlib import nullcontext

import pytest

from lowland import StoreError, Trajectory
from lowland.trajectory import store as store_module
from tests.processes import call_in_process
from tests.trajectory.kills import kill_at_every_event
from tests.trajectory.test_store import append_the_rest, check_iterates, files, filled


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    filled(path, 3)
    return path


def copy(whole, tmp_path, name="run"):
    return shutil.copytree(whole, tmp_path / name)


def check_survives(path, least, most, *, warns=False):
    """Opens with at least all but the last iterate, and goes on as if nothing had happened."""
    with pytest.warns(UserWarning, match="has no line for 00000") if warns else nullcontext():
        store = Trajectory.open(path)
    assert least <= len(store) <= most
    check_iterates(store, len(store))
    append_the_rest(store, 5)
    check_iterates(store, 5)
    check_iterates(Trajectory.open(path), 5)
    check_iterates(Trajectory.open(path, recover=True), 5)
    stray = {".journal.jsonl.tmp"}  # one at most: its name is always the same
    assert set(files(path)) - stray == {
        *(f"00000{i}.safetensors" for i in range(5)),
        "journal.jsonl",
    }


def check_every_cut(whole, tmp_path):
    """The journal's last line ends at any byte; its file is whole."""
    content = (whole / "journal.jsonl").read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(last, len(content)):
        path = copy(whole, tmp_path, f"cut-{cut}")
        (path / "journal.jsonl").write_bytes(content[:cut])
        check_survives(path, 2, 2, warns=True)
        shutil.rmtree(path)


def test_a_journal_cut_off_at_any_byte_of_its_last_line(whole, tmp_path):
    check_every_cut(whole, tmp_path)


def test_the_check_of_cuts_fails_a_store_that_appends_behind_the_rest(whole, tmp_path, monkeypatch):
    """The broken twin: a partial line is skipped by readers, and then written on to."""
    original = Trajectory._require_writable

    def at_the_end(self):
        original(self)
        self._end = (self.path / "journal.jsonl").stat().st_size

    monkeypatch.setattr(Trajectory, "_require_writable", at_the_end)
    with pytest.raises((StoreError, AssertionError)):
        check_every_cut(whole, tmp_path)


def test_a_last_line_of_zeros_is_one_that_was_not_written(whole, tmp_path):
    # what a power cut leaves where the file had grown and its bytes had not come yet
    path = copy(whole, tmp_path)
    with open(path / "journal.jsonl", "ab") as journal:
        journal.write(b"\0" * 200)
    check_survives(path, 3, 3)


@pytest.mark.parametrize("length", [0, 1, 100, None])
@pytest.mark.parametrize("name", [".000003.safetensors.tmp", "000003.safetensors"])
def test_a_file_without_a_line_is_written_over(whole, tmp_path, name, length):
    path = copy(whole, tmp_path)
    content = (path / "000002.safetensors").read_bytes()
    (path / name).write_bytes(content[:length])
    check_survives(path, 3, 3, warns=name == "000003.safetensors")


def test_readers_do_not_cut_off_what_a_writer_is_writing(whole, tmp_path):
    path = copy(whole, tmp_path)
    journal = path / "journal.jsonl"
    with open(journal, "ab") as file:
        file.write(b"0123")
    before = journal.read_bytes()
    Trajectory.open(path).swa()
    assert journal.read_bytes() == before


def test_a_kill_while_the_store_is_made_does_not_block_the_folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / ".journal.jsonl.tmp").write_bytes(b"half a li")
    with pytest.raises(StoreError, match="not a trajectory"):
        Trajectory.open(path)
    filled(path, 2)
    check_survives(path, 2, 2)


def test_a_rewind_that_was_killed_before_its_files_were_gone(whole, tmp_path):
    path = copy(whole, tmp_path)
    keep = {f: (path / f).read_bytes() for f in files(path)}
    Trajectory.open(path).rewind(10)
    for name in ("000001.safetensors", "000002.safetensors"):
        (path / name).write_bytes(keep[name])
    check_survives(path, 1, 1, warns=True)


@pytest.mark.parametrize("torn", [True, False])
def test_a_disk_that_fills_up_loses_at_most_one_iterate(whole, tmp_path, monkeypatch, torn):
    path = copy(whole, tmp_path)
    store = Trajectory.open(path)
    line, fsync, calls = store_module.journal_line, os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 3:  # the file's and the folder's were in time
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(
            store_module, "journal_line", lambda entry: line(entry)[: 20 if torn else None]
        )
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            store.append(store[0], step=35)
    if not torn:
        # the line is there: this object cannot know, and writes no second one
        with pytest.raises(StoreError, match="open it again"):
            append_the_rest(store, 5)
        store = Trajectory.open(path)
        assert store.steps == [10, 20, 30, 35]
        store.rewind(30)
    append_the_rest(store, 5)
    check_iterates(Trajectory.open(path), 5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("work", "events"), [("make", 40), ("append", 24), ("rewind", 45)])
def test_a_process_killed_at_every_event(tmp_path, work, events):
    kills = call_in_process(kill_at_every_event, tmp_path, work)
    assert kills >= events  # the events are seen
    for n in range(1, kills + 1):
        path = tmp_path / f"{n:03d}"
        words = (tmp_path / f"{n:03d}.done").read_text().split()
        done = [int(word) for word in words if word.isdigit()]
        least = done[-1] if done else 1 if work == "append" else 0
        if not (path / "journal.jsonl").exists():
            assert not done
            filled(path, 0)  # making it again is not blocked
        most = min(least + 1, 3)
        if work == "rewind" and least == 3:
            least = 1
        check_survives(path, least, most)
