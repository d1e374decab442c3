"""One's own tensors, from one file."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lowland import Classification, DataError
from lowland.zoo import tensors


def test_tensors_are_split(tmp_path):
    x = np.arange(40.0).reshape(20, 2)
    np.savez(tmp_path / "a.npz", x=x, y=x[:, 0])
    save_file({"x": torch.tensor(x), "y": torch.tensor(x[:, 0])}, tmp_path / "a.safetensors")
    a, b = (tensors(tmp_path / f"a.{end}") for end in ("npz", "safetensors"))
    for part, n in (("train", 14), ("validation", 2), ("test", 4)):
        assert [len(t) for t in a[part]] == [n, n]
        assert torch.equal(a[part][0], b[part][0])
        assert torch.equal(a[part][0][:, :1], a[part][1])  # examples stay together; (N, 1)
        assert a[part][0].dtype == torch.float32
    rows = torch.cat([a[part][0] for part in a])
    assert sorted(rows[:, 0].tolist()) == x[:, 0].tolist()
    assert not torch.equal(a["test"][0], tensors(tmp_path / "a.npz", seed=1)["test"][0])


def test_splits_of_the_file(tmp_path):
    path = tmp_path / "a.npz"
    own = {"x": np.zeros((9, 2)), "y": np.zeros(9, dtype=np.int8)}
    np.savez(path, **own, x_test=np.ones((3, 2)), y_test=np.ones(3, dtype=np.int8))
    data = tensors(path, validation=2)
    assert {part: len(y) for part, (_, y) in data.items()} == {
        "train": 7, "validation": 2, "test": 3
    }  # fmt: skip
    assert data["test"][0].min() == 1
    assert data["train"][1].dtype == torch.int64
    assert data["train"][1].ndim == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": np.zeros(3)}, "expected x and y, found a"),
        ({"x": np.zeros(3), "y": np.zeros(4)}, r"got \(3,\) and \(4,\)"),
        ({"x": np.zeros(3), "y": np.array(["a", "b", "c"])}, "npz of numbers"),
        ({"x": np.zeros(3), "y": np.array([None] * 3)}, "npz of numbers"),
        ({"x": np.zeros(9), "y": np.zeros(9), "x_test": np.zeros(3)}, "expected x_test and y_test"),
    ],
)
def test_what_can_be_wrong_with_tensors(tmp_path, content, words):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match=words):
        tensors(tmp_path / "a.npz")


def test_files_of_tensors(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"hello")
    with pytest.raises(DataError, match="damaged"):
        tensors(tmp_path / "a.npz")
    with pytest.raises(DataError, match="no such file"):
        tensors(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"expected an \.npz or \.safetensors"):
        tensors(tmp_path / "a.csv")
    np.savez(tmp_path / "c.npz", x=np.zeros(9), y=np.zeros(9))
    with pytest.raises(DataError, match="no examples for validation"):
        tensors(tmp_path / "c.npz", validation=0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_class_labels_that_are_floats_are_sent_the_right_way(tmp_path, dtype, suffix):
    """The file reader has made them (N, 1), so that reshaping is no advice."""
    x, y = np.zeros((10, 3), np.float32), np.arange(10).astype(dtype) % 3

    def labels(y):
        path = tmp_path / f"own{suffix}"
        if suffix == ".npz":
            np.savez(path, x=x, y=y)
        else:
            save_file({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, path)
        return tensors(path)["train"][1]

    output = torch.zeros(7, 3)
    message = r"integer labels \(7,\), got float32 \(7, 1\).*y.astype\('int64'\)"
    with pytest.raises(DataError, match=message):
        Classification().check(output, labels(y))
    Classification().check(output, labels(y.astype("int64")))  # what the message says to do
    Classification().check(torch.zeros(7, 1), labels(y % 2))  # binary labels may be floats
