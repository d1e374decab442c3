import numpy as np
import pytest
import torch

from lowland.errors import DataError
from lowland.zoo import Regression1dNet, regression1d


def test_columns_are_inputs_and_targets(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    x, y = regression1d(path)["train"]
    assert torch.equal(x, torch.tensor([[1.0], [3.0], [5.0]]))
    assert torch.equal(y, torch.tensor([[2.0], [4.0], [6.0]]))


def test_what_is_no_such_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        regression1d(tmp_path / "rows.npy")
    np.save(tmp_path / "rows.npy", np.zeros(4))
    with pytest.raises(DataError, match="expected an array"):
        regression1d(tmp_path / "rows.npy")


def test_the_network_sees_half_of_x_and_its_square():
    net = Regression1dNet(widths=())
    with torch.no_grad():
        net.net[1].weight.copy_(torch.tensor([[10.0, 1.0]]))
        net.net[1].bias.zero_()
    assert torch.allclose(net(torch.tensor([[4.0]])), torch.tensor([[24.0]]))
