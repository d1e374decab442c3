"""Journals from elsewhere, or that lost a line: nothing outside is touched, nothing is lost."""

import json
import shutil
import warnings
from contextlib import suppress
from zlib import crc32

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lowland import LowlandError, ParamLayout, StoreError, Trajectory
from lowland.files import write_text
from lowland.trajectory.journal import checksum, journal_line
from tests.trajectory.test_store import append_the_rest, check_iterates, files, filled


def lines_of(path):
    return (path / "journal.jsonl").read_bytes().splitlines(keepends=True)


def write_lines(path, lines):
    (path / "journal.jsonl").write_bytes(b"".join(lines))


def forged(path, number, **changes):
    """A journal with other values in a line, and the checksum of these."""
    lines = lines_of(path)
    entry = json.loads(lines[number].partition(b" ")[2])
    lines[number] = journal_line(entry | changes)
    write_lines(path, lines)


@pytest.mark.parametrize(
    "name",
    [
        "../../thesis.txt",
        "../run/000001.safetensors",
        "./000001.safetensors",
        "deep/000001.safetensors",
        "..\\..\\thesis.txt",
        "000001.safetensors\0.txt",
        "journal.jsonl",
        "000000.safetensors",
        "\ud800",
        "",
        ".",
        "..",
    ],
)
def test_a_line_that_names_another_file_is_refused(tmp_path, name):
    path = tmp_path / "deep" / "run"
    filled(path)
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years!")
    forged(path, 2, file=name, size=6)
    before = files(tmp_path)
    with pytest.raises(StoreError):
        Trajectory.open(path)
    with suppress(StoreError):
        Trajectory.open(path, recover=True).rewind(0)
    assert thesis.read_text() == "years!"
    assert {f for f in before if not f.startswith("deep")} <= set(files(tmp_path))


def test_an_absolute_name_is_refused(tmp_path):
    path = tmp_path / "run"
    filled(path)
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years!")
    forged(path, 3, file=str(thesis), size=6)
    with pytest.raises(StoreError, match=r"line 4 is of '/"):
        Trajectory.open(path)


def test_a_line_without_a_checksum_is_not_read_as_a_users_checkpoint(tmp_path):
    """Iterates of `from_checkpoints` have no size and checksum, and lie anywhere."""
    path = tmp_path / "run"
    filled(path)
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "other.pt")
    forged(path, 1, file=str(tmp_path / "other.pt"), size=None, crc=None)
    with pytest.raises(StoreError, match="line 2: size: expected int, got None"):
        Trajectory.open(path)


@pytest.mark.parametrize("target", ["journal.jsonl", "000001.safetensors"])
def test_a_link_that_leads_out_is_refused(tmp_path, target):
    path = tmp_path / "run"
    filled(path)
    outside = shutil.move(path / target, tmp_path / "outside")
    (path / target).symlink_to(outside)
    with pytest.raises(StoreError, match="is a link that leads out of its folder"):
        Trajectory.open(path)


def test_a_temporary_file_that_is_a_link_is_not_written_through(tmp_path):
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years!")
    store = filled(tmp_path / "run", 1)
    (tmp_path / "run" / ".000001.safetensors.tmp").symlink_to(thesis)
    append_the_rest(store, 2)
    check_iterates(store, 2)
    (tmp_path / ".a.txt.tmp").symlink_to(thesis)
    write_text(tmp_path / "a.txt", "new")
    assert thesis.read_text() == "years!"
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_line_raises_and_nothing_is_overwritten(tmp_path, missing):
    path = tmp_path / "run"
    filled(path, 4)
    whole = {name: (path / name).read_bytes() for name in files(path)}
    lines = lines_of(path)
    write_lines(path, lines[:missing] + lines[missing + 1 :])
    with pytest.raises(StoreError, match=rf"line {missing + 1} is of .*: a line is missing; the "):
        Trajectory.open(path)
    with pytest.raises(StoreError, match=f"the {missing - 1} iterates before it are whole"):
        Trajectory.open(path)
    store = Trajectory.open(path, recover=True)
    check_iterates(store, missing - 1)
    for i in range(missing - 1, 4):  # put aside, not deleted
        name = f"00000{i}.safetensors"
        assert (path / "damaged" / name).read_bytes() == whole[name]
    append_the_rest(store, 4)
    check_iterates(Trajectory.open(path), 4)


@pytest.mark.parametrize("order", [(1, 3, 2, 4), (1, 2, 2, 3), (2, 1, 3, 4)])
def test_lines_in_another_order_are_refused(tmp_path, order):
    path = tmp_path / "run"
    filled(path, 4)
    lines = lines_of(path)
    write_lines(path, [lines[0], *(lines[i] for i in order)])
    with pytest.raises(StoreError, match="a line is missing"):
        Trajectory.open(path)


def test_steps_that_do_not_go_up_are_refused(tmp_path):
    path = tmp_path / "run"
    filled(path, 3)
    forged(path, 3, step=20)
    with pytest.raises(StoreError, match="line 4 is of step 20, which is not after step 20"):
        Trajectory.open(path)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_shortened_tail_warns(tmp_path, count):
    path = tmp_path / "run"
    filled(path, 4)
    write_lines(path, lines_of(path)[: 1 + count])
    with pytest.warns(
        UserWarning, match=rf"has no line for 00000{count}\.safetensors.*end was lost"
    ):
        store = Trajectory.open(path)
    check_iterates(store, count)
    store = Trajectory.open(path, recover=True)
    check_iterates(store, count)
    assert (path / "damaged" / "000003.safetensors").is_file()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_iterates(Trajectory.open(path), count)


HEADERS = {
    "a list": [1, 2],
    "null": None,
    "no layout": {"format": "lowland-trajectory-1"},
    "a layout that is a list": {"format": "lowland-trajectory-1", "layout": [1]},
    "a newer format": {"format": "lowland-trajectory-2", "layout": {}},
    "a newer field": {"compressed": True},
    "a dtype that is a function": {"layout": {"parameters": [["w", [3], "load"]], "aliases": {}}},
    "a negative shape": {"layout": {"parameters": [["w", [-3], "float32"]], "aliases": {}}},
    "a name twice": {"layout": {"parameters": [["w", [3], "float32"]] * 2, "aliases": {}}},
    "an alias of nothing": {
        "layout": {"parameters": [["w", [3], "float32"]], "aliases": {"a": "b"}}
    },
    "no parameter": {"layout": {"parameters": [], "aliases": {}}},
    "too large": {"layout": {"parameters": [["w", [2**40, 2**40], "float32"]], "aliases": {}}},
    "half a character": {"layout": {"parameters": [["\ud800", [3], "float32"]], "aliases": {}}},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_headers_of_another_form_are_refused(tmp_path, header):
    path = tmp_path / "run"
    filled(path)
    lines = lines_of(path)
    if isinstance(header, dict) and "format" not in header:
        header = json.loads(lines[0].partition(b" ")[2]) | header
    write_lines(path, [journal_line(header), *lines[1:]])
    for recover in (False, True):
        with pytest.raises(StoreError, match="journal"):
            Trajectory.open(path, recover=recover)


ENTRIES = {
    "a newer field": {"epoch": 3},
    "a file that is a number": {"file": 3},
    "a step that is text": {"step": "10"},
    "a step of many digits": {"step": 10**30},
    "a step that is true": {"step": True},
    "metrics that are a list": {"metrics": [1]},
    "metrics that are text": {"metrics": {"loss": "low"}},
    "a size with a fraction": {"size": 1.5},
}


@pytest.mark.parametrize("changes", ENTRIES.values(), ids=ENTRIES.keys())
def test_lines_of_another_form_are_refused(tmp_path, changes):
    path = tmp_path / "run"
    filled(path)
    forged(path, 2, **changes)
    before = files(path)
    for recover in (False, True):  # what a later version wrote is not put aside
        with pytest.raises(StoreError, match="line 3: "):
            Trajectory.open(path, recover=recover)
    assert files(path) == before


@pytest.mark.parametrize(
    "body", [b"[" * 50_000, b"[" * 50_000 + b"]" * 50_000, b"3", b"{", b"\xff"]
)
@pytest.mark.parametrize("number", [0, 2])
def test_lines_that_are_no_object_are_refused(tmp_path, body, number):
    path = tmp_path / "run"
    filled(path)
    lines = lines_of(path)
    lines[number] = b"%08x %s\n" % (crc32(body), body)
    write_lines(path, lines)
    with pytest.raises(StoreError, match=f"line {number + 1}"):
        Trajectory.open(path)


def test_a_file_without_weights_is_named(tmp_path):
    path = tmp_path / "run"
    filled(path)
    file = path / "000001.safetensors"
    for tensors in ({"w": torch.ones(3)}, {"weights": torch.ones(3, dtype=torch.int64)}):
        save_file(tensors, file)
        forged(path, 2, size=file.stat().st_size, crc=checksum(file))
        with pytest.raises(LowlandError, match=r"000001\.safetensors: expected weights in"):
            Trajectory.open(path)[1]


def test_an_iterate_that_has_not_its_name_yet_is_read_and_named_by_the_next(tmp_path):
    """A kill between the line of an iterate and the name of its file."""
    path = tmp_path / "run"
    filled(path, 2)
    (path / "000001.safetensors").rename(path / ".000001.safetensors.tmp")
    store = Trajectory.open(path)
    check_iterates(store, 2)
    append_the_rest(store, 3)
    check_iterates(Trajectory.open(path), 3)
    assert ".000001.safetensors.tmp" not in files(path)


def test_layouts_come_back_from_their_description():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    layout = ParamLayout(net)
    assert ParamLayout.from_spec(json.loads(json.dumps(layout.spec()))).entries == layout.entries
