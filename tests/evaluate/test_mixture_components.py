"""The components of a regression's mixture, against the average that is made of them."""

import math

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.evaluate.mixture_components import components
from tests.evaluate.test_predict import scattered
from tests.models import targets


@pytest.mark.parametrize("chunk", [1, 3])
def test_the_average_of_the_components_is_the_prediction(chunk):
    data = targets()
    width = data[0][1].shape[1]
    net = nn.Sequential(nn.Linear(data[0][0].shape[1], 5), nn.Tanh(), nn.Linear(5, 2 * width))
    task = ll.Regression(target_mean=3.0, target_std=2.0)
    surface = ll.LossSurface(net, task, data)
    weights = scattered(surface.layout, 7)
    means, variances = components(
        surface, weights, strategy="vmap" if chunk > 1 else "points", chunk=chunk
    )
    pred = ll.predict(surface, weights)
    torch.testing.assert_close(means.mean(0), pred.mean, atol=1e-5, rtol=0)
    total = variances.mean(0) + means.var(0, correction=0)
    torch.testing.assert_close(total, pred.variance, atol=1e-5, rtol=1e-5)
    exact = -(
        torch.distributions.Normal(means, variances.sqrt())
        .log_prob(pred.targets)
        .sum(2)
        .logsumexp(0)
        - math.log(7)
    ).mean()
    assert pred.metrics()["nll"] == pytest.approx(float(exact), rel=1e-5)
    with pytest.raises(ll.ConfigError, match="expected a Regression"):
        components(
            ll.LossSurface(nn.Linear(2, 2), ll.Classification(), [(torch.ones(2, 2),) * 2]), weights
        )
