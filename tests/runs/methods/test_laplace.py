"""The last-layer Laplace approximation around the annealed network."""

import sys

import pytest
import torch

from lowland.errors import ConfigError
from lowland.runs.methods.laplace import Laplace
from lowland.uncertainty import LastLayerLaplace


def test_its_prediction_is_the_approximations(finished):
    pytest.importorskip("laplace")
    method, run = finished.method("laplace"), finished.run
    point = finished.load(run.annealed(0)).point
    approximation = LastLayerLaplace(run.setup.surface, point, validation=run.setup.validation)
    expected = approximation.predict(run.setup.test)
    pred = finished.results.prediction(method)
    torch.testing.assert_close(pred.probs, expected.probs, rtol=1e-4, atol=1e-6)


def test_a_missing_package_is_named(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "laplace", None)
    with pytest.raises(ConfigError, match=r"pip install \"lowland\[baselines\]\""):
        Laplace().check(finished.run)


def test_it_is_fitted_once_for_all_loaders(finished, monkeypatch):
    fits = []
    monkeypatch.setattr(
        "lowland.runs.methods.laplace.LastLayerLaplace",
        lambda surface, point, validation: fits.append(point) or len(fits),
    )
    method = Laplace()
    inputs = finished.inputs(method)
    assert [method.approximation(finished.run, inputs) for _ in range(2)] == [1, 1]
