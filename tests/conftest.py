"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def same_threads():
    """A test that changes the number of threads does not slow the others down."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
