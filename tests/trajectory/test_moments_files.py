"""Moments in files that others wrote: no argument that writes, and no more memory than the file."""

import pytest
import torch
from torch import nn

from lowland import EMA, SWA, SWAG, ParamLayout, StoreError
from lowland.tensor_files import load_tree, save_tree
from tests.trajectory.iterates import collected, random_walk
from tests.trajectory.test_moments import Net

LAYOUT = ParamLayout(nn.Linear(2, 1))


def saved(path, kind=SWAG, **options):
    moments = kind(LAYOUT, **options)
    for step in range(3):
        moments.update(torch.arange(3.0) + step)
    return moments.save(path)


def forged(file, kind="SWAG", **changes):
    save_tree(file, load_tree(file, kind=kind) | changes, kind=kind)


def test_a_file_cannot_have_another_one_deleted(tmp_path):
    """`SWAG(path=)` makes its file anew: as an argument from a file it deleted the user's own."""
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years!")
    path = saved(tmp_path / "swag", rank=2)
    forged(path, path=str(thesis))
    with pytest.raises(StoreError, match="unknown field 'path'"):
        SWAG.load(path)
    assert thesis.read_text() == "years!"


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "meta"},
        {"momentum": 0.5},
        {"count": "3"},
        {"count": -1},
        {"count": None},
        {"rank": "2"},
        {"rank": 2**62},
        {"_mean": [1.0, 2.0, 3.0]},
        {"_mean": torch.zeros(4)},
        {"_variance": torch.zeros(0)},
        {"_deviations": torch.zeros(5, 3)},
        {"_deviations": None},
        {"deviations_dtype": "load"},
        {"layout": [1, 2]},
        {"layout": {"parameters": [["weight", [2**34], "float32"]], "aliases": {}}},
    ],
    ids=repr,
)
def test_fields_of_another_form_are_refused(tmp_path, changes):
    path = saved(tmp_path / "swag", rank=2)
    forged(path, **changes)
    with pytest.raises((StoreError, ValueError), match=r"swag|deviations_dtype"):
        SWAG.load(path)


def test_what_was_saved_still_comes_back(tmp_path):
    for kind, options in ((SWAG, {"rank": 2}), (EMA, {"decay": 0.5, "warmup": True}), (SWA, {})):
        back = kind.load(saved(tmp_path / "a", kind, **options))
        assert back.count == 3
        assert back._settings() == kind(LAYOUT, **options)._settings()


def test_a_tree_that_is_no_state_is_refused(tmp_path):
    for tree in ([1, 2], None, 3, {3: 4}, {}):
        save_tree(tmp_path / "a", tree, kind="SWA")
        with pytest.raises(StoreError, match="a: "):
            SWA.load(tmp_path / "a")


def test_files_that_are_not_its_own_are_refused_by_name(tmp_path):
    path = tmp_path / "swag.safetensors"
    collected(SWAG, random_walk(3, 5), rank=2).save(path)
    whole = path.read_bytes()
    for cut in (0, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(StoreError, match=r"swag.safetensors"):
            SWAG.load(path)
    path.write_bytes(b"not a safetensors file at all")
    with pytest.raises(StoreError, match=r"swag.safetensors"):
        SWAG.load(path)
    swa = collected(SWA, random_walk(3, 5)).save(tmp_path / "swa.safetensors")
    with pytest.raises(StoreError, match=r"swa.safetensors: expected SWAG, found SWA"):
        SWAG.load(swa)
    with pytest.raises(StoreError, match="no such file"):
        SWAG.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("rank", [0, 2])
def test_a_file_of_a_model_whose_parameters_come_in_another_order(rank, tmp_path):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 2)
            self.norm = nn.BatchNorm1d(4)
            self.first = nn.Linear(5, 4)

    layout = ParamLayout(Net())
    swag = SWAG(layout, rank=rank)
    for w in random_walk(4, layout.size):
        swag.update(w)
    swag.save(tmp_path / "swag.safetensors")
    other = ParamLayout(Other())
    loaded = SWAG.load(tmp_path / "swag.safetensors", layout=other)
    ours, theirs = layout.unflatten(swag.mean), other.unflatten(loaded.mean)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
