"""The batches of many networks, stacked."""

import torch

import lowland as ll
from lowland.tensor_files import same_tree
from lowland.train.member_batches import MemberBatches
from tests.train.side_by_side import batches


def test_examples_are_gathered_in_blocks_of_batches(monkeypatch):

    found = []
    for block in (1 << 23, 200, 1):
        monkeypatch.setattr("lowland.train.member_batches._BLOCK", block)
        stack = MemberBatches(batches(), device=torch.device("cpu"))
        found.append([[t.clone() for t in batch] for batch, _ in stack.epoch(3)])
        assert same_tree([list(b) for b, _ in stack.epoch(3, start=2)], found[-1][2:])
    assert same_tree(found[0], found[1])
    assert same_tree(found[0], found[2])
    alone = list(batches()[1].epoch(3))
    assert [len(x[0]) for x, _ in found[0]] == [5, 5, 5, 5, 2]
    for (x, y), (mine, target) in zip(found[0], alone, strict=True):
        assert torch.equal(x[1], mine)
        assert torch.equal(y[1], target)


def test_the_examples_that_pad_a_batch_are_masked():
    data = batches()
    x, y = data[2].data
    data[2] = ll.Batches((x[:20], y[:20]), batch_size=5, drop_last=False, seed=1)
    data = [ll.Batches(one.data, batch_size=11, seed=one.seed) for one in data]
    stacked = list(MemberBatches(data, device=torch.device("cpu")).epoch(0))
    assert [mask is None for _, mask in stacked] == [True, False]
    assert stacked[1][1].sum(1).tolist() == [11, 11, 9, 11]
    seen = torch.cat([batch[0][2] for batch, _ in stacked])[:20]
    assert torch.equal(seen.sort(0).values, x[:20].sort(0).values)
