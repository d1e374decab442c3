"""Stochastic weight averaging."""

import torch


def test_its_posterior_is_the_average(finished, posterior_of):
    average = finished.load(finished.run.average(0, "swa"))
    assert torch.equal(posterior_of("swa").draw(0), average.weights)
