"""Validation examples that a configuration takes from the training examples."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lowland.errors import ConfigError, DataError
from lowland.runs.config import check_config
from lowland.runs.sections import Validation
from lowland.runs.setup import Setup
from lowland.runs.validation import with_all_examples, with_validation

X = torch.arange(100.0)[:, None]
Y = (torch.arange(100) % 10 == 0).long()  # ten of a hundred


def rows(split):
    return sorted(int(x) for x in split[0].flatten())


@pytest.mark.parametrize("by", ["random", "stratified"])
def test_the_splits_share_no_example_and_lose_none(by):
    splits = with_validation({"train": (X, Y), "test": (X, Y)}, Validation(share=0.2, by=by))
    held, rest = rows(splits["validation"]), rows(splits["train"])
    assert len(held) == 20
    assert sorted(held + rest) == list(range(100))
    again = with_validation({"train": (X, Y)}, Validation(share=0.2, by=by))
    assert rows(again["validation"]) == held
    other = with_validation({"train": (X, Y)}, Validation(share=0.2, by=by, seed=1))
    assert rows(other["validation"]) != held
    if by == "stratified":
        assert int(splits["validation"][1].sum()) == 2


def test_a_group_is_on_one_side():
    groups = np.arange(100) // 7
    data = {"train": (X, Y), "groups": groups}
    splits = with_validation(data, Validation(share=0.3, by="group"))
    held = {int(groups[i]) for i in rows(splits["validation"])}
    rest = {int(groups[i]) for i in rows(splits["train"])}
    assert not held & rest
    assert 30 <= len(rows(splits["validation"])) < 37
    assert "groups" not in splits


def test_clean_examples_are_held_out_too():
    clean = (X + 1000, Y)
    splits = with_validation({"train": (X, Y), "clean": clean}, Validation(share=0.2))
    assert rows(splits["clean"]) == [row + 1000 for row in rows(splits["train"])]
    assert min(rows(splits["validation"])) >= 1000  # without augmentation


def test_data_sets_and_dicts_are_split():
    splits = with_validation({"train": TensorDataset(X, Y)}, Validation(share=0.25))
    assert (len(splits["train"]), len(splits["validation"])) == (75, 25)
    splits = with_validation({"train": {"x": X, "labels": Y}}, Validation(share=0.25))
    assert len(splits["validation"]["x"]) == 25


@pytest.mark.parametrize(
    ("data", "settings", "error", "words"),
    [
        ({"train": (X, Y), "validation": (X, Y)}, {}, ConfigError, "give validation examples"),
        ({"train": iter([(X, Y)])}, {}, DataError, "a loader cannot be split"),
        ({"train": (X, X)}, {"by": "stratified"}, DataError, "a class for each example"),
        ({"train": (X, Y)}, {"by": "group"}, DataError, "needs 'groups'"),
        ({"train": (X[:2], Y[:2])}, {"share": 0.1}, DataError, "leaves none on one side"),
    ],
)
def test_what_cannot_be_split_is_reported(data, settings, error, words):
    with pytest.raises(error, match=words):
        with_validation(data, Validation(**settings))


OWN = """
import torch
x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
y = (x[:, 0] > 0).long()
def data():
    return {"train": (x[:48], y[:48]), "test": (x[48:], y[48:])}
def net():
    return torch.nn.Linear(3, 2)
"""


def test_a_configuration_splits_what_its_data_give(tmp_path, monkeypatch):
    (tmp_path / "without_validation.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    values = {
        "model": {"name": "without_validation:net"},
        "data": {"name": "without_validation:data"},
        "validation": {"share": 0.25, "by": "stratified"},
        "threads": 1,
    }
    setup = Setup(check_config(values, where="here"))
    assert setup.validation.num_examples == 12
    assert setup.batches(0).num_examples == 36


# -- trained again on all examples -----------------------------------------------------------------


def test_what_was_held_out_comes_back_where_it_was():
    clean = (X + 0.5, Y)
    given = {"train": (X, Y), "clean": clean, "test": (X, Y), "groups": np.arange(100)}
    data = with_all_examples(with_validation(given, Validation(share=0.2)), given)
    assert data["train"] is given["train"]
    assert data["clean"] is clean
    assert len(rows(data["validation"])) == 20


def test_validation_examples_of_the_data_follow_those_of_training():
    for kind in (lambda x, y: (x, y), lambda x, y: {"x": x, "y": y}, TensorDataset):
        data = {"train": kind(X[:9], Y[:9]), "clean": kind(X[:9], Y[:9])}
        data |= {"validation": kind(X[9:], Y[9:]), "test": kind(X, Y)}
        whole = with_all_examples(data, data)
        for split in ("train", "clean"):
            examples = whole[split]
            if isinstance(examples, dict):
                examples = tuple(examples.values())
            if not isinstance(examples, tuple):
                examples = tuple(torch.stack(each) for each in zip(*examples, strict=True))
            assert torch.equal(examples[0], X)
            assert torch.equal(examples[1], Y)
        assert whole["test"] is data["test"]


@pytest.mark.parametrize(
    ("train", "validation", "words"),
    [
        (DataLoader(TensorDataset(X, Y)), (X, Y), "nor joined for average.retrain"),
        ((X, Y), TensorDataset(X, Y), "of one kind, got tuple and TensorDataset"),
        ((X, Y), {"x": X, "y": Y}, "of one kind, got tuple and dict"),
    ],
)
def test_examples_that_cannot_be_joined_are_refused(train, validation, words):
    data = {"train": train, "validation": validation}
    with pytest.raises(DataError, match=words):
        with_all_examples(data, data)
