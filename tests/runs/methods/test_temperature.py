"""SGD's probabilities at a temperature that validation examples chose."""

import pytest
import torch

from lowland.core import Regression
from lowland.errors import ConfigError
from lowland.runs.methods.temperature import TemperatureScaling
from lowland.uncertainty import temper


def test_the_prediction_is_sgds_at_the_temperature(finished):
    sgd = finished.results.prediction(finished.method("sgd"))
    tuned = finished.load(finished.run.tuning(finished.method("temperature")))
    pred = finished.results.prediction(finished.method("temperature"))
    torch.testing.assert_close(pred.probs, temper(sgd, tuned["temperature"]).probs)
    if abs(tuned["temperature"] - 1) > 0.01:
        assert not torch.allclose(pred.probs, sgd.probs)


def test_it_is_for_classification(finished, monkeypatch):
    monkeypatch.setattr(finished.run.setup, "task", Regression())
    with pytest.raises(ConfigError, match="it is for classification, not for Regression"):
        TemperatureScaling().check(finished.run)
