"""Example inputs of a model from its layers."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.alignment.example_inputs import candidate_batches, model_inputs
from lowland.core.template import Template


def inputs_of(net, inputs=None):
    return model_inputs(Template(net), dict(net.named_parameters()), inputs)


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
    (x,), keywords = inputs_of(net)
    assert tuple(x.shape) == shape
    assert keywords == {}
    assert net(x).shape[0] == 2


def test_words_and_other_dtypes():
    (ids,), _ = inputs_of(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(32, 2)))
    assert ids.dtype == torch.int64
    assert candidate_batches(nn.Linear(3, 2).double())[0].dtype == torch.float64


def test_inputs_that_are_given_are_passed_as_they_are():
    class Two(nn.Linear):
        def forward(self, x, *, scale):
            return super().forward(x) * scale

    args, keywords = inputs_of(Two(3, 2), {"x": torch.ones(1, 3), "scale": 2.0})
    assert args == ()
    assert set(keywords) == {"x", "scale"}
    args, keywords = inputs_of(nn.Bilinear(2, 3, 1), (torch.ones(1, 2), torch.ones(1, 3)))
    assert [tuple(x.shape) for x in args] == [(1, 2), (1, 3)]


def test_a_model_that_takes_none_of_them_is_refused_in_its_own_words():
    class Stubborn(nn.Linear):
        def forward(self, x):
            raise ValueError("only Tuesdays")

    with pytest.raises(ll.ConfigError, match=r"no batch that the model takes \(.*only Tuesdays"):
        inputs_of(Stubborn(3, 2))
    with pytest.raises(ll.ConfigError, match="pass inputs="):
        inputs_of(nn.ParameterList([nn.Parameter(torch.ones(2))]))
    with pytest.raises(ll.ConfigError, match="no batch that the model takes"):
        inputs_of(nn.Linear(3, 2), torch.ones(1, 4))
