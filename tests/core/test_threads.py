"""The number of threads inside of a block, and its restoration."""

import pytest
import torch

import lowland as ll
from lowland.core.threads import using_threads


@pytest.mark.parametrize("before", [1, 2])
def test_the_number_is_restored_after_an_error(before):
    torch.set_num_threads(before)
    with using_threads(2):
        assert torch.get_num_threads() == 2
        with using_threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        torch.set_num_threads(3)  # as a model may do
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="fault"), using_threads(1):
        raise RuntimeError("fault")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [0, -1, 1025, 100_000])
def test_numbers_that_crash_torch_are_an_error(count):
    with pytest.raises(ll.ConfigError, match=rf"threads: expected 1 to 1024, got {count}\."):
        using_threads(count).__enter__()
