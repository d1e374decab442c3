"""Inputs that a model takes, when nothing but its layers is known."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.core.template import Template
from lowland.landscape.inputs import arguments, likely


def of(net, given=None):
    return arguments(Template(net), dict(net.named_parameters()), given)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nn.Linear(3, 2), (2, 3)),
        (nn.Sequential(nn.ReLU(), nn.LayerNorm((4, 5))), (2, 4, 5)),
        (nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(2304, 2)), (2, 3, 28, 28)),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 62, 2)), (2, 2, 64)),
        (nn.Sequential(nn.BatchNorm1d(7), nn.Linear(7, 2)), (2, 7)),
    ],
    ids=["linear", "layer norm", "images", "sequences", "batch norm"],
)  # fmt: skip
def test_the_first_shape_that_the_model_takes(net, shape):
    (x,), named = of(net)
    assert tuple(x.shape) == shape
    assert named == {}
    assert net(x).shape[0] == 2


def test_words_and_other_dtypes():
    (ids,), _ = of(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(32, 2)))
    assert ids.dtype == torch.int64
    assert likely(nn.Linear(3, 2).double())[0].dtype == torch.float64


def test_inputs_that_are_given_are_passed_as_they_are():
    class Two(nn.Linear):
        def forward(self, x, *, scale):
            return super().forward(x) * scale

    args, named = of(Two(3, 2), {"x": torch.ones(1, 3), "scale": 2.0})
    assert args == ()
    assert set(named) == {"x", "scale"}
    args, named = of(nn.Bilinear(2, 3, 1), (torch.ones(1, 2), torch.ones(1, 3)))
    assert [tuple(x.shape) for x in args] == [(1, 2), (1, 3)]


def test_a_model_that_takes_none_of_them_is_refused_in_its_own_words():
    class Stubborn(nn.Linear):
        def forward(self, x):
            raise ValueError("only Tuesdays")

    with pytest.raises(ll.ConfigError, match=r"no batch that the model takes \(.*only Tuesdays"):
        of(Stubborn(3, 2))
    with pytest.raises(ll.ConfigError, match="pass inputs="):
        of(nn.ParameterList([nn.Parameter(torch.ones(2))]))
    with pytest.raises(ll.ConfigError, match="no batch that the model takes"):
        of(nn.Linear(3, 2), torch.ones(1, 4))
