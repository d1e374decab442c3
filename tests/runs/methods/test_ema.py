"""The exponential moving average of all iterates."""

import torch


def test_its_posterior_is_the_average_with_its_own_statistics(finished, posterior_of):
    average = finished.load(finished.run.average(0, "ema"))
    assert torch.equal(posterior_of("ema").draw(0), average.weights)
    assert not torch.equal(average.weights, finished.load(finished.run.average(0, "swa")).weights)
