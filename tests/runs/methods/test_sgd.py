"""The last weights of annealed SGD."""

import torch


def test_its_posterior_is_the_network(finished, posterior_of):
    point = finished.load(finished.run.annealed(0)).point
    assert torch.equal(posterior_of("sgd").draw(0), point.weights)
