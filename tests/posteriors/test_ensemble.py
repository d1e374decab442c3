"""Members drawn in turn: of vectors, of one tensor, of points, of a sequence on disk."""

import pytest
import torch

from lowland import ConfigError, Ensemble, LayoutError, LowlandError, Point
from tests.posteriors.contract import PosteriorContract


def members(size, dtype):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=g, dtype=dtype) for _ in range(3)]


class TestOfVectors(PosteriorContract):
    random = False

    def make(self, size, dtype):
        return Ensemble(members(size, dtype))


class TestOfOneTensor(PosteriorContract):
    random = False

    def make(self, size, dtype):
        return Ensemble(torch.stack(members(size, dtype)))


class TestOfPoints(PosteriorContract):
    random = False
    buffers = {"bn.running_mean": torch.zeros(2)}  # noqa: RUF012

    def make(self, size, dtype):
        return Ensemble([Point(w, dict(self.buffers)) for w in members(size, dtype)])


class Lazy:
    """A sequence that is read one member at a time."""

    def __init__(self, n):
        self.n = n
        self.reads = []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.reads.append(i)
        return Point(torch.full((2,), float(i)), {"b": torch.tensor(i)})


def test_members_of_a_sequence_are_read_when_they_are_drawn():
    lazy = Lazy(100)
    ensemble = Ensemble(lazy)
    assert len(lazy.reads) <= 1
    lazy.reads.clear()
    assert [float(p.weights[0]) for p in ensemble.points(3)] == [0, 1, 2]
    assert lazy.reads == [0, 1, 2]
    assert int(ensemble.point(107).buffers["b"]) == 7


def test_an_ensemble_stays_what_it_was_when_its_sequence_grows():
    lazy = Lazy(2)
    ensemble = Ensemble(lazy)
    lazy.n = 5
    assert len(ensemble) == ensemble.support == 2
    assert float(ensemble.draw(2)[0]) == 0


def test_what_makes_no_ensemble_is_refused():
    with pytest.raises(ConfigError, match="at least one member"):
        Ensemble([])
    with pytest.raises(LayoutError, match=r"\(2,\), got \(3,\) for member 1"):
        Ensemble([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(LayoutError, match=r"expected weights \(P,\), got float32 \(\)"):
        Ensemble(torch.zeros(5))  # one vector is no ensemble
    with pytest.raises(LayoutError, match=r"expected weights \(P,\), got float32 \(3, 4\)"):
        Ensemble(torch.zeros(2, 3, 4))


def test_there_is_no_density():
    with pytest.raises(LowlandError, match="no density"):
        Ensemble([torch.zeros(2)]).log_prob(torch.zeros(2))
