import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.plots import shift
from lowland.records import ShiftCurves
from tests.plots.contract import FigureContract

STRENGTH = torch.arange(6)


def record(scale=1.0):
    kinds = {"contrast": 1.0, "gaussian_blur": 3.0}
    return ShiftCurves(
        STRENGTH,
        {
            kind: {"nll": scale * (0.1 + 0.1 * by * STRENGTH), "accuracy": 0.9 - 0.05 * STRENGTH}
            for kind, by in kinds.items()
        },
    )


class TestShift(FigureContract):
    figure = "shift"

    def record(self):
        return record()

    def odd_records(self):
        return {
            "clean alone": ShiftCurves(torch.tensor([0]), {"contrast": {"nll": torch.ones(1)}}),
            "wide": {"a": record(), "b": record(1000.0)},
            "many": {f"method {i}": record(1 + 0.01 * i) for i in range(9)},
        }


class TestAccuracy(TestShift):
    def draw(self, record, **options):
        return super().draw(record, metric="accuracy" if self.holds(record) else "nll", **options)

    @staticmethod
    def holds(record):
        records = record.values() if isinstance(record, dict) else [record]
        return all("accuracy" in c for one in records for c in one.curves.values())


def test_a_line_is_the_mean_over_kinds_or_one_kind():
    np.testing.assert_allclose(shift(record()).lines[0].get_ydata(), 0.1 + 0.2 * np.arange(6))
    ax = shift(record(), kind="gaussian_blur")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 0.1 + 0.3 * np.arange(6), rtol=1e-6)
    assert "gaussian blur" in ax.get_xlabel()
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["clean", "1"]


def test_nll_of_several_sizes_is_logarithmic_and_accuracy_never():
    both = {"a": record(), "b": record(1000.0)}
    assert shift(both).get_yscale() == "log"
    assert shift(record(0.1)).get_yscale() == "log"  # tenfold and more
    assert shift(both, metric="accuracy").get_yscale() == "linear"


def test_what_is_not_there_is_named():
    with pytest.raises(ConfigError, match="metric: expected one of accuracy, nll, got 'ece'"):
        shift(record(), metric="ece")
    with pytest.raises(ConfigError, match="kind: expected one of contrast, gaussian_blur"):
        shift(record(), kind="fog")
    with pytest.raises(ConfigError, match="there is no curve"):
        shift(ShiftCurves(STRENGTH, {}))
