"""Damaged stores: what is wrong is named, and recovery keeps the iterates before it."""

import pytest
import torch
from safetensors.torch import save_file

from lowland import StoreError, Trajectory
from tests.trajectory.test_store import append_the_rest, check_iterates, files, filled


def truncated(path):
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def removed(path):
    path.unlink()


def foreign(path):
    save_file({"weights": torch.zeros(42)}, path)


DAMAGES = [truncated, flipped, removed, foreign]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_damaged_file_is_named_and_recovery_keeps_those_before(tmp_path, damage, which):
    path = tmp_path / "run"
    filled(path)
    victim = path / f"00000{which}.safetensors"
    damage(victim)
    left = files(path)
    with pytest.raises(StoreError, match=rf"00000{which}.safetensors"):
        Trajectory.open(path)[which]  # damage that keeps the size shows when the bytes are read
    assert files(path) == left  # nothing was touched
    recovered = Trajectory.open(path, recover=True)
    check_iterates(recovered, which)
    aside = {f.removeprefix("damaged/") for f in files(path) if f.startswith("damaged/")}
    missing = {f"00000{i}.safetensors" for i in range(which, 3)} & set(left)
    assert aside == missing | {"journal.jsonl"}
    append_the_rest(recovered)
    check_iterates(Trajectory.open(path, recover=True), 5)


def test_a_second_recovery_does_not_write_over_what_the_first_put_aside(tmp_path):
    path = tmp_path / "run"
    filled(path)
    flipped(path / "000001.safetensors")
    first = Trajectory.open(path, recover=True)
    remaining = (path / "damaged" / "000001.safetensors").read_bytes()
    append_the_rest(first, 3)
    truncated(path / "000001.safetensors")
    Trajectory.open(path, recover=True)
    assert (path / "damaged" / "000001.safetensors").read_bytes() == remaining
    assert (path / "damaged-2" / "000001.safetensors").is_file()
    assert (path / "damaged-2" / "000002.safetensors").is_file()


@pytest.mark.parametrize("line", [2, 3, 4])
def test_a_damaged_line_is_named_and_recovery_keeps_those_before(tmp_path, line):
    path = tmp_path / "run"
    filled(path)
    journal = path / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")
    lines[line - 1] = lines[line - 1].replace(b"step", b"stop")
    journal.write_bytes(b"\n".join(lines))
    with pytest.raises(
        StoreError, match=rf"line {line} is damaged; the {line - 2} iterates before"
    ):
        Trajectory.open(path)
    recovered = Trajectory.open(path, recover=True)
    check_iterates(recovered, line - 2)
    append_the_rest(recovered)
    check_iterates(Trajectory.open(path), 5)


def test_recovery_of_a_whole_store_moves_nothing(tmp_path):
    path = tmp_path / "run"
    filled(path)
    before = files(path)
    check_iterates(Trajectory.open(path, recover=True), 3)
    assert files(path) == before
