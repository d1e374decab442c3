"""Orders and transforms are functions of (seed, epoch, batch)."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import lowland as ll
from lowland.tensor_files import same_tree
from lowland.train.batches import rest_of_epoch

X, Y = torch.arange(22.0).view(11, 2), torch.arange(11)


def jitter(batch, generator):
    x, y = batch
    return x + torch.rand(x.shape, generator=generator), y


@pytest.mark.parametrize(
    "data", [(X, Y), [X, Y], TensorDataset(X, Y)], ids=["tuple", "list", "set"]
)
@pytest.mark.parametrize("transform", [None, jitter])
def test_an_epoch_is_the_same_from_any_batch_on(data, transform):
    batches = ll.Batches(data, batch_size=3, seed=4, transform=transform)
    whole = [list(map(torch.as_tensor, b)) for b in batches.epoch(2)]
    assert len(whole) == len(batches) == 4
    for start in range(6):
        torch.manual_seed(start)  # the global generator has no part in it
        found = [list(b) for b in batches.epoch(2, start=start)]
        assert same_tree(found, whole[start:])
    labels = torch.cat([y for _, y in whole])
    assert sorted(labels.tolist()) == list(range(11))
    assert labels.tolist() != list(range(11))
    other = torch.cat([y for _, y in batches.epoch(3)])
    assert not torch.equal(labels, other)
    reseeded = ll.Batches(data, batch_size=3, seed=5, transform=transform)
    assert not torch.equal(torch.cat([y for _, y in reseeded.epoch(2)]), labels)


def test_plain_iteration_goes_through_the_epochs():
    batches = ll.Batches((X, Y), batch_size=4, seed=1)
    for epoch in range(3):
        assert same_tree(list(batches), list(batches.epoch(epoch)))


def test_data_set_and_tensors_give_the_same():
    a = ll.Batches((X, Y), batch_size=4, seed=1)
    b = ll.Batches(TensorDataset(X, Y), batch_size=4, seed=1)
    for (x, y), (u, v) in zip(a.epoch(1), b.epoch(1), strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)


def test_a_data_set_does_not_touch_the_global_generator():
    before = torch.get_rng_state()
    list(ll.Batches(TensorDataset(X, Y), batch_size=4).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_last_batch_and_no_shuffle():
    assert [len(y) for _, y in ll.Batches((X, Y), batch_size=4).epoch(0)] == [4, 4, 3]
    assert [len(y) for _, y in ll.Batches((X, Y), batch_size=4, drop_last=True).epoch(0)] == [4, 4]
    still = ll.Batches((X, Y), batch_size=4, shuffle=False)
    assert torch.cat([y for _, y in still]).tolist() == list(range(11))
    assert torch.cat([y for _, y in still]).tolist() == list(range(11))  # replayable


def test_dicts_and_single_tensors():
    (first, *_) = ll.Batches({"a": X, "labels": Y}, batch_size=4, shuffle=False)
    assert torch.equal(first["a"], X[:4])
    assert torch.equal(first["labels"], Y[:4])
    (first, *_) = ll.Batches(X, batch_size=4, shuffle=False)
    assert torch.equal(first, X[:4])


def test_transforms_of_two_batches_and_two_epochs_differ():
    zeros = torch.zeros(8, 2)
    batches = ll.Batches((zeros, zeros), batch_size=4, transform=jitter)
    drawn = [x for e in range(2) for x, _ in batches.epoch(e)]
    assert len({tuple(x.flatten().tolist()) for x in drawn}) == 4


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        ((X, Y[:5]), {}, r"equal first dimensions, got \[5, 11\]"),
        ((X, torch.tensor(1.0)), {}, "equal first dimensions"),
        ((X[:0], Y[:0]), {}, "0 examples"),
        ((X, Y), {"batch_size": 12, "drop_last": True}, "no batch of 12"),
        (iter([1]), {}, "map-style"),
        ((X, Y), {"batch_size": 0}, "batch_size"),
    ],
    ids=["uneven", "scalar", "empty", "dropped", "stream", "zero"],
)
def test_data_that_make_no_batches(data, options, error):
    with pytest.raises(ll.LowlandError, match=error):
        ll.Batches(data, **{"batch_size": 2, **options})


def test_arrays_beside_tensors_are_refused():
    data = {"x": torch.zeros(20, 2), "weight": np.ones(20)}
    with pytest.raises(ll.DataError, match="an array among them"):
        ll.Batches(data, batch_size=5)


def test_content_distinguishes_data():
    x = torch.randn(5000, 3)
    one, same, other = (ll.Batches((t,), batch_size=5) for t in (x, x.clone(), x + 1))
    assert one.content_hash() == same.content_hash() != other.content_hash()
    assert ll.Batches([(x[i],) for i in range(3)], batch_size=1).content_hash() is not None


def test_the_rest_of_an_epoch_is_that_of_the_whole_one():
    """Of a loader that draws its order from torch's global generator, as does the training."""
    x = torch.arange(9.0)
    loader = DataLoader(TensorDataset(x), batch_size=2, shuffle=True)
    with torch.random.fork_rng():
        whole = [batch.tolist() for (batch,) in rest_of_epoch(loader, 3, done=0, seed=5)]
        torch.manual_seed(7)
        rest = rest_of_epoch(loader, 3, done=2, seed=5)
        assert [batch.tolist() for (batch,) in rest] == whole[2:]
        after = torch.rand(1)
        torch.manual_seed(7)
        assert torch.equal(torch.rand(1), after)  # the noise goes on where it stood
    assert sorted(value for batch in whole for value in batch) == x.tolist()
