"""Passes of the annealed network with its dropout on."""

import pytest
import torch

from lowland.core import Classification
from lowland.errors import ConfigError
from lowland.runs.methods.dropout import MCDropout


def test_a_network_without_dropout_is_refused(finished):
    with pytest.raises(ConfigError, match="the network has no dropout"):
        MCDropout().check(finished.run)


def test_it_predicts_by_passes_of_the_annealed_network(finished, monkeypatch):
    calls = []

    def passes(surface, point, loader, **options):
        calls.append((point, options))

    monkeypatch.setattr("lowland.runs.methods.dropout.mc_dropout", passes)
    method, run = MCDropout(), finished.run
    trained = finished.load(run.annealed(0))
    method.predict(run, {run.annealed(0).name: trained}, {}, run.setup.test, False)
    ((point, options),) = calls
    assert torch.equal(point.weights, trained.point.weights)
    assert (options["samples"], options["seed"]) == (3, 0)
    assert isinstance(run.setup.task, Classification)
