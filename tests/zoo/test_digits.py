"""Digits: splits without overlap, and shifted images."""

import pytest
import torch

from lowland import ConfigError
from lowland.zoo import digits


def test_digits_are_split_without_overlap():
    splits = digits()
    assert {n: tuple(x.shape) for n, (x, _) in splits.items()} == {
        "train": (898, 1, 8, 8), "validation": (360, 1, 8, 8), "test": (539, 1, 8, 8)
    }  # fmt: skip
    assert all(len(x) == len(y) for x, y in splits.values())
    images = torch.cat([x for x, _ in splits.values()])
    assert images.min() == 0
    assert images.max() == 1
    # together they are scikit-learn's examples, each once
    from sklearn.datasets import load_digits

    found = load_digits()
    theirs = {
        (row.tobytes(), int(y))
        for row, y in zip(found.data.astype("float32") / 16, found.target, strict=True)
    }
    rows = [x.flatten(1).numpy() for x, _ in splits.values()]
    ours = [
        {(row.tobytes(), int(y)) for row, y in zip(r, y, strict=True)}
        for r, (_, y) in zip(rows, splits.values(), strict=True)
    ]
    assert set.union(*ours) == theirs
    assert sum(map(len, ours)) == len(theirs) == 1797


def test_digits_are_a_function_of_the_seed():
    a, b, c = digits(), digits(), digits(seed=1)
    torch.manual_seed(5)
    for name in ("train", "validation", "test"):
        assert torch.equal(a[name][0], b[name][0])
        assert torch.equal(a[name][1], b[name][1])
    assert not torch.equal(a["train"][1], c["train"][1])


@pytest.mark.parametrize(
    "shares", [{"train": 0.9, "validation": 0.1}, {"train": 0.0}, {"validation": -0.1}]
)
def test_shares_without_a_rest(shares):
    with pytest.raises(ConfigError, match="rest"):
        digits(**shares)


def test_shifted_images_are_the_same_images_elsewhere():
    splits = digits(shift=2)
    x, y = splits["train"]
    move = splits["transform"]
    moved, labels = move((x, y), torch.Generator().manual_seed(0))
    again, _ = move((x, y), torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)
    assert torch.equal(labels, y)
    assert not torch.equal(moved, x)
    assert moved.shape == x.shape
    padded = torch.nn.functional.pad(x, (2,) * 4)
    seen = set()
    for i in range(60):
        places = [
            (r, c) for r in range(5) for c in range(5)
            if torch.equal(padded[i, :, r : r + 8, c : c + 8], moved[i])
        ]  # fmt: skip
        assert places, i
        seen.update(places[:1])
    assert len(seen) > 10  # every image its own way
