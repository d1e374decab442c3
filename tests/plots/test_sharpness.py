import math

import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.plots import sharpness
from lowland.records import SharpnessResult
from tests.plots.contract import FigureContract


def record(scale=1.0, *, radii=(0.1,), kind="sam"):
    values = scale * torch.tensor([[1.0, 2.0, 3.0]] * len(radii)).double()
    interval = torch.stack([values.amin(1), values.amax(1)], 1)
    return SharpnessResult(
        kind, torch.tensor(radii).double(), values.amax(1), interval, values, 0.1, 0.01
    )


class TestSharpness(FigureContract):
    figure = "sharpness"

    def record(self):
        return record(radii=(0.1, 0.01))

    def odd_records(self):
        return {
            "two": {"SGD": record(), "SWA, of ten iterates": record(0.01)},
            "infinite": record(math.inf),
            "one direction": SharpnessResult(
                "average",
                torch.ones(1),
                torch.ones(1),
                torch.full((1, 2), torch.nan),
                torch.ones(1, 1),
                0.1,
                0.0,
            ),
        }


def test_each_radius_of_each_record_has_a_row_with_its_interval():
    ax = sharpness({"SGD": record(radii=(0.1, 0.01)), "SWA": record(0.5)})
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["SGD, radius 0.1", "SGD, radius 0.01", "SWA, radius 0.1"]
    bars = ax.containers
    assert [bar.lines[0].get_xdata()[0] for bar in bars] == [3.0, 3.0, 1.5]
    (segment,) = bars[2].lines[2][0].get_segments()
    np.testing.assert_allclose(segment, [[0.5, 2], [1.5, 2]])
    assert ax.get_xscale() == "linear"
    assert sharpness({"a": record(), "b": record(0.01)}).get_xscale() == "log"


def test_units():
    assert sharpness(record(kind="keskar")).get_xlabel() == "keskar sharpness (%)"
    assert sharpness(record()).get_xlabel() == "sam sharpness (nats)"
    with pytest.raises(ConfigError, match="different measures, keskar, sam"):
        sharpness({"a": record(), "b": record(kind="keskar")})


def test_a_linear_scale_begins_at_zero():
    assert sharpness(record()).get_xlim()[0] == 0
    wide = sharpness({"SGD": record(), "SWA": record(0.001)})
    assert wide.get_xscale() == "log"
    assert sharpness(record(-1.0)).get_xlim()[0] < -3  # a loss that falls away from w
