import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.plots import interpolation
from lowland.records import PathResult
from tests.plots.contract import FigureContract

T = torch.linspace(-1, 2, 31).double()


def record(*, test=True, scale=1.0, error=None):
    loss = 0.1 + scale * (T * (T - 1)).square()
    error = loss / (5 * loss.max()) if error is None else error
    others = {"test_loss": 2 * loss, "test_error": 2 * error} if test else {}
    return PathResult(T, loss, error, *[T.abs()] * 3, outside=True, **others)


class TestInterpolation(FigureContract):
    figure = "interpolation"

    def record(self):
        return record()

    def odd_records(self):
        gaps = record()
        gaps.loss[3] = torch.inf
        gaps.error[3] = torch.nan
        return {"train alone": record(test=False), "wide": record(scale=1e3), "gaps": gaps}


def test_loss_and_accuracy_have_axes_of_their_own():
    ax = interpolation(record(), ends=("SGD", "SWA"))
    (right,) = ax.child_axes
    train, test = [line for line in ax.lines if len(line.get_xdata()) == len(T)]
    np.testing.assert_allclose(train.get_xydata(), torch.stack([T, record().loss], 1))
    np.testing.assert_allclose(test.get_ydata(), record().test_loss)
    np.testing.assert_allclose(right.lines[0].get_ydata(), 100 * (1 - record().error))
    np.testing.assert_allclose(right.lines[1].get_ydata(), 100 * (1 - record().test_error))
    assert (train.get_linestyle(), test.get_linestyle()) == ("-", "--")
    assert ax.get_xlim() == right.get_xlim()
    assert ax.get_xlabel() == r"$\alpha$, from SGD at 0 to SWA at 1"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "test"]


def test_without_a_loader_there_is_no_legend():
    ax = interpolation(record(test=False))
    assert ax.get_legend() is None
    assert ax.get_xlabel() == r"$\alpha$"
    assert interpolation(record(scale=1e3)).get_yscale() == "log"


def test_a_regression_has_no_accuracy():
    with pytest.raises(ConfigError, match="no error"):
        interpolation(record(test=False, error=torch.full_like(T, torch.nan)))
