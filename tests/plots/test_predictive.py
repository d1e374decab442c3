import numpy as np
import pytest
import torch

from lowland.errors import DataError
from lowland.plots import predictive
from lowland.records import Predictive
from tests.plots.contract import FigureContract


def regression(n=6, dimensions=2):
    target = torch.arange(n * dimensions, dtype=torch.float32).reshape(n, dimensions)
    mean = target + 1
    mean[:1] += 8
    return Predictive(
        "regression", 4, mean=mean, variance=torch.full_like(mean, 4.0), targets=target
    )


def classification():
    bins = torch.tensor([0.25, 0.75])
    reliability = {"confidence": bins, "accuracy": bins / 2, "count": torch.tensor([5, 5])}
    return Predictive("classification", 4, reliability=reliability)


class TestRegression(FigureContract):
    figure = "predictive"

    def record(self):
        return regression()

    def odd_records(self):
        zeros = torch.zeros(3, 1)
        return {
            "one row": regression(1, 1),
            "many examples": regression(1000),
            "constant": Predictive("regression", 1, mean=zeros, variance=zeros, targets=zeros),
            "a target without a dimension": Predictive(
                "regression", 1, mean=zeros, variance=zeros, targets=zeros.squeeze()
            ),
        }


class TestClassification(FigureContract):
    figure = "predictive"

    def record(self):
        return classification()


def test_means_bars_and_misses():
    ax = predictive(regression(), dimension=1)
    within, beyond = ax.containers
    np.testing.assert_array_equal(within[0].get_xdata(), [3, 5, 7, 9, 11])
    np.testing.assert_array_equal(within[0].get_ydata(), [4, 6, 8, 10, 12])
    np.testing.assert_array_equal(beyond[0].get_ydata(), [10])
    (low, high) = within[2][0].get_segments()[0][:, 1]
    assert (low, high) == (4 - 2 * 2, 4 + 2 * 2)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "within ± 2 sd (83%)",
        "beyond (17%)",
    ]


def test_many_examples_are_thinned_and_it_says_so():
    ax = predictive(regression(1000), examples=100)
    assert sum(len(bars[0].get_xdata()) for bars in ax.containers) == 100
    assert [text.get_text() for text in ax.texts] == ["100 of 1000 examples"]


def test_a_classifier_gives_its_reliability_diagram():
    ax = predictive(classification())
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.125, 0.375])
    assert ax.get_ylabel() == "accuracy"


def test_what_cannot_be_drawn_raises():
    with pytest.raises(DataError, match="targets"):
        predictive(Predictive("regression", 1, mean=torch.ones(2, 1), variance=torch.ones(2, 1)))
    with pytest.raises(DataError, match="no examples"):
        predictive(regression(0))
