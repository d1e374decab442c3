"""Fingerprints of evaluations: they differ where values would, and agree between processes."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.evaluate.fingerprint import (
    evaluation_fingerprint,
    model_fingerprint,
    statistics_checksum,
)
from tests.models import conv_bn, images

DATA = [(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.ones(8, 1))]


def net(activation=nn.Identity):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, 1))


@pytest.mark.parametrize(
    "other",
    [
        (net(), ll.Regression(noise_variance=100.0)),
        (net(), ll.Regression(noise_variance=1.0, target_std=2.0)),
        (net(nn.ReLU), ll.Regression(noise_variance=1.0)),
    ],
)
def test_files_of_another_likelihood_or_architecture_are_refused(other, tmp_path):
    model, task = other
    first = ll.LossSurface(net(), ll.Regression(noise_variance=1.0), DATA)
    w = first.layout.flatten(net())
    line = ll.Line(w, w + 1)
    ll.path(line, first, points=3, store=tmp_path / "path")
    ll.path(line, first, points=3, store=tmp_path / "path")
    with pytest.raises(ll.ConfigError, match="other settings"):
        ll.path(line, ll.LossSurface(model, task, DATA), points=3, store=tmp_path / "path")


def test_fingerprints_are_equal_in_every_process():
    task = ll.Classification(unpack=lambda batch: ((batch,), {}, None))
    surface = ll.LossSurface(nn.Linear(2, 2), task, [(torch.zeros(2, 2), torch.zeros(2).long())])
    w = torch.zeros(6)
    options = ll.EvalOptions()
    fingerprint = evaluation_fingerprint(ll.Line(w, w + 1), surface, options)
    assert " at 0x" not in str(fingerprint)
    assert "ignore_index=-100" in fingerprint["task"]


def test_parameters_that_are_no_part_of_w_count():
    surface = ll.LossSurface(net(), ll.Regression(noise_variance=1.0), DATA, where="^2")
    model = net()
    same = ll.LossSurface(model, ll.Regression(noise_variance=1.0), DATA, where="^2")
    assert model_fingerprint(surface) == model_fingerprint(same)
    with torch.no_grad():
        model[2].bias += 1  # a part of w
    same = ll.LossSurface(model, ll.Regression(noise_variance=1.0), DATA, where="^2")
    assert model_fingerprint(surface) == model_fingerprint(same)
    with torch.no_grad():
        model[0].bias += 1
    other = ll.LossSurface(model, ll.Regression(noise_variance=1.0), DATA, where="^2")
    assert model_fingerprint(surface) != model_fingerprint(other)


def test_the_examples_of_batchnorm_statistics_count():
    surface = ll.LossSurface(conv_bn(), ll.Classification(), images())
    other = ll.LossSurface(conv_bn(), ll.Classification(), [(x + 1, y) for x, y in images()])
    again = ll.LossSurface(conv_bn(), ll.Classification(), images())
    assert statistics_checksum(surface) == statistics_checksum(again)
    assert statistics_checksum(surface) != statistics_checksum(other)
    assert statistics_checksum(ll.LossSurface(net(), ll.Regression(), DATA)) is None
