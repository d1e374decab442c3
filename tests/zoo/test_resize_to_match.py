"""Images of another set in a run's shape."""

import pytest
import torch

from lowland import ConfigError, DataError
from lowland.zoo import class_subset, digits, resize_to_match


def test_fitted_gives_pixels_whatever_they_were_normalised_with():
    x = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = torch.arange(5)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    shifted = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    plain = resize_to_match({"test": (x, y)}, size=8, channels=1)["test"]
    loader = [(shifted[:2], y[:2]), (shifted[2:], y[2:])]
    undone = resize_to_match({"test": loader, "normalise": (mean, std)}, size=8, channels=1)["test"]
    torch.testing.assert_close(undone[0], plain[0])
    assert undone[1].tolist() == y.tolist()
    grey = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    assert plain[0].shape == (5, 1, 8, 8)
    torch.testing.assert_close(plain[0].mean((1, 2, 3)), grey.mean((1, 2)), atol=0.02, rtol=0)


def test_fitted_of_grey_images_of_the_same_size_is_the_images():
    x, y = digits()["test"]
    found, labels = resize_to_match(digits(), size=8, channels=3)["test"]
    assert torch.equal(found, x.expand(-1, 3, -1, -1))
    assert torch.equal(labels, y)
    assert torch.equal(resize_to_match("lowland.zoo:digits", size=(8, 8), channels=1)["test"][0], x)


def test_what_fitted_cannot_do_is_reported():
    with pytest.raises(ConfigError, match="channels: expected one of 1, 3"):
        resize_to_match("lowland.zoo:digits", size=8, channels=2)
    with pytest.raises(ConfigError, match="size"):
        resize_to_match("lowland.zoo:digits", size=0)
    with pytest.raises(DataError, match="test: expected"):
        resize_to_match({"test": (torch.zeros(3, 4), torch.zeros(3))}, size=8)


def test_their_names_say_what_they_are():
    assert class_subset("lowland.zoo:digits", classes=[8, 9])["name"] == "digits 8, 9"
    assert resize_to_match({"name": "lowland.zoo:digits"}, size=8)["name"] == "digits"
