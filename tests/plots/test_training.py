import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.plots import training
from lowland.records import TrainingLog
from tests.plots.contract import FigureContract, assert_readable


def log(epochs=10, averages=None, **columns):
    epoch = torch.arange(1, epochs + 1)
    return TrainingLog({"epoch": epoch, "loss": 2.0 / epoch, **columns}, averages or {})


def average(first=6, last=10, level=0.5):
    epoch = torch.arange(first, last + 1)
    return {"epoch": epoch, "nll": level + 0.1 / epoch}


def line(ax, label):
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found


class TestTraining(FigureContract):
    figure = "training"

    def record(self):
        return log(nll=torch.linspace(2, 1, 10), averages={"SWA": average(), "SWAG": average()})

    def odd_records(self):
        nan = torch.full((10,), torch.nan)
        return {
            "no epoch": log(0),
            "one epoch": log(1, averages={"SWA": average(1, 1)}),
            "constant": log(3, loss=torch.ones(3)),
            "zero": log(3, loss=torch.zeros(3)),
            "never validated": log(nll=nan),
            "diverged": log(loss=torch.tensor([1.0, 2.0, torch.inf, *[torch.nan] * 7])),
            "averages at one height": log(averages={f"{i}": average() for i in range(9)}),
            "an average that ends early": log(averages={"a": average(), "b": average(2, 4, 0.49)}),
            "an empty average": log(averages={"SWA": average(6, 5)}),
        }


def test_lines_hold_the_data():
    record = TestTraining().record()
    ax = training(record)
    for name in ("SWA", "SWAG"):
        np.testing.assert_array_equal(line(ax, name).get_xdata(), record.averages[name]["epoch"])
        np.testing.assert_allclose(line(ax, name).get_ydata(), record.averages[name]["nll"])
    np.testing.assert_allclose(line(ax, "training loss").get_ydata(), record.columns["loss"])
    np.testing.assert_allclose(line(ax, "iterates").get_ydata(), record.columns["nll"])
    assert line(ax, "SWA").get_linewidth() > line(ax, "training loss").get_linewidth()
    assert set(line(ax, "averaging starts").get_xdata()) == {6}


def test_epochs_without_a_validation_are_left_out():
    nll = torch.tensor([torch.nan, 1.0, torch.nan, 0.5])
    ax = training(log(4, nll=nll))
    np.testing.assert_array_equal(line(ax, "iterates").get_xdata(), [2, 4])
    np.testing.assert_array_equal(line(ax, "iterates").get_ydata(), [1.0, 0.5])


def test_other_metrics_are_drawn_without_the_loss():
    accuracy = torch.linspace(0.1, 0.9, 10)
    ax = training(log(accuracy=accuracy, averages={"SWA": average()}), metric="accuracy")
    assert [line.get_label() for line in ax.lines] == ["iterates", "averaging starts"]
    assert ax.get_ylabel() == "validation accuracy (fraction)"
    with pytest.raises(ConfigError, match=r"epoch, loss.*'error'"):
        training(log(), metric="error")


@pytest.mark.parametrize(("smallest", "scale"), [(0.2, "linear"), (0.05, "log"), (0.0, "linear")])
def test_a_wide_range_is_logarithmic(smallest, scale):
    assert training(log(2, loss=torch.tensor([2.0, smallest]))).get_yscale() == scale


def test_half_precision_is_drawn_and_labels_stay_readable_on_small_axes():
    from matplotlib.figure import Figure

    averages = {f"average {i}": average() for i in range(4)}
    record = log(averages=averages, loss=torch.ones(10, dtype=torch.bfloat16))
    ax = Figure(figsize=(8, 6), layout="constrained").subplots(2, 2)[0, 0]
    assert_readable(training(record, ax=ax))
