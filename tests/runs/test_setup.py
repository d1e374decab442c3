"""What a run works on: which rows are for what."""

import pytest
import torch

from lowland.runs.config import check_config
from lowland.runs.setup import Setup

OWN = """
import pytest
import torch
from torch import nn

def rows(shift):
    g = torch.Generator().manual_seed(0)
    return shift + torch.randn(64, 3, generator=g), torch.randint(2, (64,), generator=g)

def data(own=True):
    splits = {name: rows(0.0) for name in ("train", "validation", "test")}
    return splits | ({"batchnorm": rows(5.0)} if own else {})

def net():
    return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
"""


def test_batchnorm_statistics_come_from_their_own_rows(tmp_path, monkeypatch):
    (tmp_path / "batchnorm_rows.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    for own, mean in ((True, 5.0), (False, 0.0)):
        values = {
            "model": {"name": "batchnorm_rows:net"},
            "data": {"name": "batchnorm_rows:data", "args": {"own": own}},
            "threads": 1,
        }
        setup = Setup(check_config(values, where="here"))
        found = setup.surface.refresh(setup.layout.flatten(setup.model(0)))
        x, _ = setup.data["batchnorm" if own else "train"]
        torch.testing.assert_close(found["0.running_mean"], x.mean(0))
        assert abs(float(found["0.running_mean"].mean()) - mean) < 0.5


SORTED = """
import pytest
import torch
from torch import nn

def data(table=None, far=0.0):
    y = torch.arange(4000) // 2000
    rows = y[:, None].float() * torch.ones(3), y
    return {"train": rows, "validation": rows, "test": rows, "table": table, "far": far}

def net():
    return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
"""


def test_the_first_training_rows_are_a_sample_of_all(tmp_path, monkeypatch):
    """A folder of images comes class by class."""
    (tmp_path / "class_by_class.py").write_text(SORTED)
    monkeypatch.syspath_prepend(tmp_path)
    values = {
        "model": {"name": "class_by_class:net"},
        "data": {"name": "class_by_class:data"},
        "bn_rows": 1000,
        "threads": 1,
    }
    setup = Setup(check_config(values, where="here"))
    w = setup.layout.flatten(setup.model(0))
    mean = setup.surface.refresh(w)["0.running_mean"]
    assert (mean - 0.5).abs().max() < 0.1
    first, again = (next(iter(setup.clean))[1] for _ in range(2))
    assert torch.equal(first, again)
    assert 0.4 < float(first.float().mean()) < 0.6


def test_without_validation_examples_some_are_held_out(tmp_path, monkeypatch):
    body = OWN.replace("splits = {", "splits = {k: v for k, v in {").replace(
        '"test")}\n', '"test")}.items() if k != "validation"}\n'
    )
    (tmp_path / "two_splits.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    values = {
        "model": {"name": "two_splits:net"},
        "data": {"name": "two_splits:data", "args": {"own": False}},
        "threads": 1,
    }
    setup = Setup(check_config(values, where="here"))
    (note,) = setup.notes
    assert "10% of the training examples are held out" in note
    assert "`average: {retrain: true}` gives them back" in note
    sizes = {name: len(setup.data[name][1]) for name in ("train", "validation", "test")}
    assert sizes == {"train": 58, "validation": 6, "test": 64}
    both = torch.cat([setup.data[name][0] for name in ("train", "validation")])
    assert len(torch.unique(both, dim=0)) == 64
    chosen = Setup(check_config(values | {"validation": {"share": 0.5}}, where="here"))
    assert not chosen.notes
    assert len(chosen.data["validation"][1]) == 32


@pytest.mark.parametrize(
    ("capabilities", "notes"),
    [({"architecture": "x86_64", "avx512_bf16": False}, 1),
     ({"architecture": "x86_64", "avx512_bf16": True}, 0), ({"architecture": "aarch64"}, 0)],
)  # fmt: skip
def test_half_precision_that_is_emulated_is_noted(capabilities, notes, tmp_path, monkeypatch):
    (tmp_path / "half_rows.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    values = {
        "model": {"name": "half_rows:net"},
        "data": {"name": "half_rows:data"},
        "threads": 1,
        "autocast": "bfloat16",
    }
    setup = Setup(check_config(values, where="here"))
    assert len(setup.notes) == notes
    assert not any("autocast=auto" not in note for note in setup.notes)
