"""Methods around the first annealed network."""

import pytest
import torch

from lowland.errors import ConfigError
from lowland.runs.methods.annealed import AnnealedMethod


class Picky(AnnealedMethod):
    name = "picky"
    title = "Picky"

    def __init__(self, reason):
        self.reason = reason

    def misfit(self, run):
        return self.reason


def test_it_needs_the_annealed_network_and_takes_its_weights(finished):
    method, run = Picky(None), finished.run
    method.check(run)
    assert list(method.needs(run)) == [run.annealed(0)]
    expected = finished.load(run.annealed(0)).point
    assert torch.equal(method.point(run, finished.inputs(method)).weights, expected.weights)


def test_a_run_that_does_not_fit_is_refused(finished):
    with pytest.raises(ConfigError, match="methods: picky: no stars; mend that, or leave it out"):
        Picky("no stars").check(finished.run)
