"""Classes held out."""

import pytest
import torch

from lowland import ConfigError, DataError
from lowland.zoo import ImageLoader, Prepare, class_subset, digits


def test_a_subset_has_the_examples_of_its_classes_and_numbers_them():
    data = digits(shift=1)
    found = class_subset(data, classes=[3, 1])
    for name in ("train", "validation", "test"):
        (x, y), (images, labels) = found[name], data[name]
        rows = [(i, [3, 1].index(int(c))) for i, c in enumerate(labels) if int(c) in (3, 1)]
        assert y.tolist() == [label for _, label in rows]
        assert torch.equal(x, images[[i for i, _ in rows]])
    assert found["transform"] is data["transform"]


def test_only_of_a_loader_leaves_the_file_as_it_is():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    loader = ImageLoader(
        (images, labels), Prepare((0.0,), (1 / 255,)), index=torch.tensor([5, 4, 0])
    )
    ((x, y),) = class_subset({"test": loader}, classes=[2, 0])["test"]
    assert (x.flatten().tolist(), y.tolist()) == ([5.0, 0.0], [0, 1])
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_what_a_subset_cannot_do_is_refused():
    for classes in ([], [1, 1], ["a"]):
        with pytest.raises(ConfigError, match="each of them once"):
            class_subset("lowland.zoo:digits", classes=classes)
    with pytest.raises(ConfigError, match="no example of 10; it has 0, 1"):
        class_subset("lowland.zoo:digits", classes=[0, 10])
    with pytest.raises(DataError, match="test: expected"):
        class_subset({"test": [1, 2]}, classes=[0])
    with pytest.raises(ConfigError, match="cannot be imported"):
        class_subset("lowland.zoo:digit", classes=[0])
    with pytest.raises(ConfigError, match="data: expected package"):
        class_subset({"nam": "lowland.zoo:digits"}, classes=[0])
