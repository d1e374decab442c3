"""Classes held out, and images of another set in a run's shape."""

import pytest
import torch

from lowland import ConfigError, DataError
from lowland.zoo import ImageLoader, Prepare, digits, fitted, only


def test_only_keeps_the_rows_of_its_classes_and_numbers_them():
    data = digits(shift=1)
    found = only(data, classes=[3, 1])
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
    ((x, y),) = only({"test": loader}, classes=[2, 0])["test"]
    assert (x.flatten().tolist(), y.tolist()) == ([5.0, 0.0], [0, 1])
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_what_only_cannot_do_is_told():
    for classes in ([], [1, 1], ["a"]):
        with pytest.raises(ConfigError, match="each of them once"):
            only("lowland.zoo:digits", classes=classes)
    with pytest.raises(ConfigError, match="no row of 10; it has 0, 1"):
        only("lowland.zoo:digits", classes=[0, 10])
    with pytest.raises(DataError, match="test: expected"):
        only({"test": [1, 2]}, classes=[0])
    with pytest.raises(ConfigError, match="cannot be imported"):
        only("lowland.zoo:digit", classes=[0])
    with pytest.raises(ConfigError, match="data: expected package"):
        only({"nam": "lowland.zoo:digits"}, classes=[0])


def test_fitted_gives_pixels_whatever_they_were_normalised_with():
    x = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = torch.arange(5)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    shifted = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    plain = fitted({"test": (x, y)}, size=8, channels=1)["test"]
    loader = [(shifted[:2], y[:2]), (shifted[2:], y[2:])]
    undone = fitted({"test": loader, "normalise": (mean, std)}, size=8, channels=1)["test"]
    torch.testing.assert_close(undone[0], plain[0])
    assert undone[1].tolist() == y.tolist()
    grey = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    assert plain[0].shape == (5, 1, 8, 8)
    torch.testing.assert_close(plain[0].mean((1, 2, 3)), grey.mean((1, 2)), atol=0.02, rtol=0)


def test_fitted_of_grey_images_of_the_same_size_is_the_images():
    x, y = digits()["test"]
    found, labels = fitted(digits(), size=8, channels=3)["test"]
    assert torch.equal(found, x.expand(-1, 3, -1, -1))
    assert torch.equal(labels, y)
    assert torch.equal(fitted("lowland.zoo:digits", size=(8, 8), channels=1)["test"][0], x)


def test_what_fitted_cannot_do_is_told():
    with pytest.raises(ConfigError, match="channels: expected 1 or 3"):
        fitted("lowland.zoo:digits", size=8, channels=2)
    with pytest.raises(ConfigError, match="size"):
        fitted("lowland.zoo:digits", size=0)
    with pytest.raises(DataError, match="test: expected"):
        fitted({"test": (torch.zeros(3, 4), torch.zeros(3))}, size=8)


def test_their_names_say_what_they_are():
    assert only("lowland.zoo:digits", classes=[8, 9])["name"] == "digits 8, 9"
    assert fitted({"name": "lowland.zoo:digits"}, size=8)["name"] == "digits"
