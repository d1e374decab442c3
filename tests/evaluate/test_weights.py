"""The weight vectors of a call, whatever they are passed as."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.evaluate.weights import Block, as_posterior, check_points, chunks, iter_weights

DATA = [(torch.ones(2, 3), torch.zeros(2).long())]


@pytest.fixture
def surface():
    torch.manual_seed(0)
    return ll.LossSurface(nn.Linear(3, 2), ll.Classification(), DATA)


def matrix(points):
    return torch.stack([p.weights if isinstance(p, ll.Point) else p for p in points])


def test_vectors_and_matrices_are_posteriors(surface):
    w = torch.randn(4, 8)
    assert isinstance(as_posterior(w), ll.Ensemble)
    assert isinstance(as_posterior(w[0]), ll.PointMass)
    assert isinstance(as_posterior(ll.Point(w[0])), ll.PointMass)
    swag = ll.SWAG(surface.layout, rank=0)
    for row in w:
        swag.update(row)
    assert isinstance(as_posterior(swag), ll.Gaussian)
    assert as_posterior(iter(w)) is None


@pytest.mark.parametrize("kind", ["matrix", "list", "ensemble"])
@pytest.mark.parametrize("samples", [None, 2, 9])
def test_members_are_iterated_once_and_again(surface, kind, samples):
    w = torch.randn(4, 8)
    weights = {"matrix": w, "list": list(w), "ensemble": ll.Ensemble(w)}[kind]
    points, total = iter_weights(surface, weights, samples, 0)
    count = min(samples or 4, 4)
    assert total == count
    for _ in range(2):
        assert torch.equal(matrix(points), w[:count])


def test_an_infinite_posterior_is_sampled(surface):
    post = ll.Gaussian(torch.zeros(8), torch.ones(8))
    points, total = iter_weights(surface, post, 3, 7)
    assert total == 3
    assert torch.equal(matrix(points), torch.stack([post.draw(i, seed=7) for i in range(3)]))
    assert iter_weights(surface, post, None, 7)[1] == 30


def test_a_module_is_its_own_weights(surface):
    net = nn.Linear(3, 2)
    points, total = iter_weights(surface, net, None, 0)
    assert total == 1
    assert torch.equal(matrix(points)[0], surface.layout.flatten(net))


def test_iterators_are_cut_and_other_types_are_refused(surface):
    points, total = iter_weights(surface, iter(torch.randn(4, 8)), 2, 0)
    assert total is None
    assert len(list(points)) == 2
    with pytest.raises(ll.DataError, match=r"weights: expected .* got int"):
        iter_weights(surface, 3, None, 0)
    with pytest.raises(ll.ConfigError, match="samples"):
        iter_weights(surface, torch.randn(4, 8), 0, 0)


def test_a_block_is_a_sequence_of_points():
    buffers = {"mean": torch.arange(3.0)}
    block = Block(torch.arange(6.0).reshape(3, 2), buffers)
    assert [p.weights.tolist() for p in block] == [[0, 1], [2, 3], [4, 5]]
    assert block[1].buffers["mean"] == 1
    assert Block(torch.zeros(1, 2))[0].buffers is None


@pytest.mark.parametrize("as_block", [False, True])
def test_a_point_that_is_not_finite_is_named_by_its_number(surface, as_block):
    w = torch.zeros(4, 8)
    w[3, 0] = torch.inf
    points = [Block(w[:2]), Block(w[2:])] if as_block else list(w)
    with pytest.raises(ll.NonFiniteError, match="draw 13"):
        list(check_points(points, surface, first=10))
    assert len(list(check_points(points[:1], surface))) == 1
    with pytest.raises(ll.LayoutError):
        list(check_points([Block(torch.zeros(2, 7))], surface))


def test_chunks_read_their_points_alone():
    read = []

    def points():
        for i in range(3):
            read.append(i)
            yield ll.Point(torch.full((2,), float(i)))

    stream = chunks(points(), 2)
    assert matrix(next(stream)).tolist() == [[0, 0], [1, 1]]
    assert read == [0, 1]
    assert matrix(next(stream)).tolist() == [[2, 2]]
    blocks = [Block(torch.zeros(5, 2)), Block(torch.zeros(1, 2))]
    assert list(chunks(iter(blocks), 2)) == blocks  # a block is a chunk
