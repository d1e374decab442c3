"""Splits of images by seed: no example twice, test examples whatever is trained on."""

from itertools import chain

import pytest
import torch

from lowland import ConfigError, DataError
from lowland.zoo.images import Prepare
from lowland.zoo.splits import select_images, split_sizes, splits

PREPARE = Prepare((0.0,), (1.0,))


def numbered(n, start=0, channels=1):
    """n images of one pixel that are told apart by its value."""
    return (torch.arange(start, start + n).to(torch.uint8).view(n, 1, 1, 1)
            .expand(-1, -1, -1, channels).contiguous(), torch.arange(n) % 3)  # fmt: skip


def split(train=None, test=None, **options):
    options = {"classes": 3, "prepare": PREPARE, "augment": PREPARE, "validation": 10} | options
    return splits(train or numbered(60), test or numbered(40, 100), **options)


def values(split):
    images = split[0] if isinstance(split, tuple) else split.images[split.index]
    return images.flatten().tolist()


@pytest.mark.parametrize("source", ["train", "test"])
def test_every_example_is_in_one_split(source):
    found = split(validation_from=source)
    parts = [values(found[name]) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == ([50, 10, 40] if source == "train" else [60, 10, 30])
    assert sorted(chain.from_iterable(parts)) == [*range(60), *range(100, 140)]
    assert sorted(values(found["clean"])) == parts[0]  # the training examples in another order
    assert values(found["batchnorm"]) == values(found["clean"]) != parts[0]
    assert found["normalise"] == ((0.0,), (1.0,))


def test_examples_are_chosen_by_the_seed_alone():
    whole, few = split(test_count=7), split(test_count=7, train_count=5)
    assert values(few["test"]) == values(whole["test"])
    assert values(few["validation"]) == values(whole["validation"])
    assert len(values(few["train"])) == 5
    assert values(split(test_count=7, seed=1)["test"]) != values(whole["test"])


def test_a_validation_split_of_its_own():
    found = split(validation=numbered(4, 200))
    assert sorted(values(found["validation"])) == [200, 201, 202, 203]
    assert len(values(found["train"])) == 60
    assert "validation" not in split(validation=0)


def test_picked_examples_keep_the_files_order():
    data = numbered(6)
    assert select_images(data, torch.tensor([4, 0, 2]))[0].flatten().tolist() == [0, 2, 4]
    assert select_images(data, torch.arange(6)) is data  # nothing is copied


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"validation_from": "clean"}, ConfigError, "expected one of train, test, got 'clean'"),
        ({"validation": 0.1}, ConfigError, "expected a number of examples, got 0.1"),
        ({"validation": 60}, ConfigError, "at least 1 train and 60 validation examples of the 60"),
        (
            {"train_count": 51},
            ConfigError,
            "expected 51 train and 10 validation examples of the 60",
        ),
        ({"test_count": 0}, ConfigError, "expected 0 test and 0 validation examples of the 40"),
        ({"classes": 2}, DataError, "train: expected labels from 0 to 1, found 0 to 2"),
        ({"test": numbered(4, channels=3)}, DataError, r"the test images \(1, 1, 3\)"),
        ({"train": (numbered(4)[0], torch.zeros(3))}, DataError, "as many labels, got 4 and 3"),
    ],
)
def test_splits_that_there_are_not(options, error, words):
    with pytest.raises(error, match=words):
        split(**options)


def test_shares_and_examples():
    assert split_sizes(10, 0.25, 3) == [2, 3]
    for wrong in (-0.1, 1.5):
        with pytest.raises(ConfigError, match="shares below 1 or whole numbers"):
            split_sizes(10, wrong)
    with pytest.raises(ConfigError, match=r"fewer than the 10 examples .* got \[5, 5\]"):
        split_sizes(10, 0.5, 5)
