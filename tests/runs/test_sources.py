"""Fingerprints of examples, model and task."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lowland.runs.sources import MOST, content_of, hash_of, sources_of

X, Y = torch.randn(600, 3), torch.arange(600) % 3


class Own(Dataset):
    """Examples with a fingerprint of their own."""

    fingerprint = "version 3"

    def __len__(self):
        raise AssertionError("nothing is read")


class Files(Dataset):
    """Images by their paths."""

    def __init__(self, folder):
        self.samples = [(str(folder / "a.txt"), 0)]

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return torch.zeros(2), 0


def test_one_changed_example_changes_the_fingerprint_of_tensors():
    other = X.clone()
    other[599, 2] += 1e-3
    assert content_of((X, Y))["by"] == "all 600 examples"
    assert content_of((X, Y)) == content_of((X.clone(), Y.clone()))
    assert content_of((X, Y)) != content_of((other, Y))
    assert content_of({"x": X, "y": Y}) != content_of({"x": other, "y": Y})


def test_data_sets_are_sampled_and_loaders_are_read_from_the_start():
    assert content_of(TensorDataset(X, Y))["by"] == f"{MOST} of 600 examples"
    loader = DataLoader(TensorDataset(X, Y), batch_size=100, shuffle=True)
    assert "batches of examples" in content_of(loader)["by"]
    assert content_of(loader) == content_of(loader)  # under a fixed seed
    assert content_of(TensorDataset(X, Y)) != content_of(TensorDataset(X + 1, Y))


def test_a_fingerprint_of_the_data_itself_stands_for_all():
    assert content_of(Own()) == {"by": "its own fingerprint", "hash": "version 3"}


def test_files_count_with_their_size(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    before = content_of(Files(tmp_path))
    assert before == content_of(Files(tmp_path))
    (tmp_path / "a.txt").write_text("longer")
    assert content_of(Files(tmp_path)) != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (torch.ones(4), torch.ones(2, 2)),
        ([1, [2, 3]], [1, 2, 3]),
        ({"a": 1}, {"b": 1}),
        (np.zeros(3), np.ones(3)),
        (1, 1.0),
        (None, "None"),
    ],
)
def test_hashes_tell_values_forms_and_names_apart(one, other):
    assert hash_of(one) != hash_of(other)
    assert hash_of(one) == hash_of(one)


def test_a_run_has_a_source_for_each_split_the_model_and_the_task(finished):
    sources = sources_of(finished.run.setup)
    assert set(sources) >= {"model", "task", "data/train", "data/validation", "data/test"}
    assert len({each.fingerprint for each in sources.values()}) == len(sources)
