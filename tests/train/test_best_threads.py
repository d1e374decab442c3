"""Timing a training step changes nothing that is the user's."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.tensor_files import same_tree
from lowland.train import best_threads
from tests.models import blobs, weight_norm_by_hook
from tests.train.resuming import network


def test_leaves_model_threads_and_random_state_alone():
    torch.set_num_threads(2)
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    found = best_threads(model, ll.Classification(), blobs()[0], repeats=2)
    assert found in (1, 2)
    assert torch.get_num_threads() == 2
    assert same_tree(dict(model.state_dict()), before)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


def test_threads_come_back_after_an_error():
    torch.set_num_threads(2)
    with pytest.raises(ll.DataError):
        best_threads(
            nn.Linear(6, 3), ll.Classification(), (torch.zeros(2, 6), torch.zeros(3).long())
        )
    assert torch.get_num_threads() == 2


def test_one_thread_needs_no_timing(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr("time.perf_counter", lambda: pytest.fail("timed"))
    assert best_threads(network(), ll.Classification(), blobs()[0]) == 1


@pytest.mark.parametrize("autocast", [None, True, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_times_what_is_trained(autocast, channels_last):
    torch.set_num_threads(2)
    seen = []

    class Looks(nn.Conv2d):
        def forward(self, x):
            out = super().forward(x)
            last = [t.is_contiguous(memory_format=torch.channels_last) for t in (x, self.weight)]
            seen.append((out.dtype, last))
            return out

    model = nn.Sequential(Looks(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    batch = torch.randn(2, 3, 8, 8), torch.zeros(2).long()
    options = {"autocast": autocast, "channels_last": channels_last}
    best_threads(model, ll.Classification(), batch, repeats=1, **options)
    dtype = torch.bfloat16 if autocast else torch.float32
    assert set(map(str, seen)) == {str((dtype, [channels_last] * 2))}
    assert model[0].weight.is_contiguous()  # the user's stays as it is


def test_models_that_cannot_be_deep_copied():
    torch.set_num_threads(2)
    assert best_threads(weight_norm_by_hook(), ll.Classification(), blobs()[0], repeats=1) in (1, 2)
