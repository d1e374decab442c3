"""Small tensors on one thread: on two, a busy neighbour slows them down many times."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread(same_threads):
    torch.set_num_threads(1)
