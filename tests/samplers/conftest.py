"""What tests of samplers share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(same_threads):
    """Samplers work on few numbers: beside a busy neighbour two threads are twenty times slower."""
    torch.set_num_threads(1)
