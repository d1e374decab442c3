import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.plots import similarity
from lowland.records import SimilarityResult
from tests.plots.contract import FigureContract


def record(n=4, names=(), *, classes=True):
    w = torch.randn(n, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = w / w.norm(dim=1, keepdim=True)
    distance = torch.cdist(w, w)
    return SimilarityResult(
        (unit @ unit.T).clamp(-1, 1),
        distance,
        distance / 100 if classes else None,
        names=list(names) or None,
    )


class TestSimilarity(FigureContract):
    figure = "similarity"

    def record(self):
        return record()

    def odd_records(self):
        return {
            "named": record(3, ["seed 0", "a much longer name", "SWA"]),
            "as many as have numbers": record(12),
            "many": record(40),
            "two alike": SimilarityResult(torch.ones(2, 2), torch.zeros(2, 2)),
        }


class TestDistance(TestSimilarity):
    def draw(self, record, **options):
        return super().draw(record, metric="distance", **options)


def test_cells_hold_the_values():
    one = record()
    ax = similarity(one, metric="disagreement")
    texts = np.array([float(text.get_text()) for text in ax.texts]).reshape(4, 4)
    np.testing.assert_allclose(texts, one.disagreement, atol=5e-5)
    assert texts.max() > 0
    np.testing.assert_allclose(ax.images[0].get_array(), one.disagreement)
    assert ax.images[0].get_clim() == (0, one.disagreement.max())
    assert similarity(one).images[0].get_clim() == (-1, 1)


def test_many_have_a_bar_instead():
    ax = similarity(record(13))
    assert not ax.texts
    assert len(ax.child_axes) == 1
    assert not similarity(record(12)).child_axes


def test_no_minus_before_a_zero():
    almost = torch.tensor([[1.0, -1e-9], [-1e-9, 1.0]])
    texts = [text.get_text() for text in similarity(SimilarityResult(almost, almost)).texts]
    assert texts == ["1.00", "0.00", "0.00", "1.00"]


def test_what_is_not_there_is_named():
    with pytest.raises(ConfigError, match="expected one of cosine, distance, got 'disagreement'"):
        similarity(record(classes=False), metric="disagreement")
