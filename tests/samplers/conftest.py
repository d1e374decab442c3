"""What tests of samplers share."""

import os

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(same_threads):
    """Samplers work on few numbers: beside a busy neighbour two threads are twenty times slower."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """Runs that are stopped write every round here; power cuts are tested beside `files`."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
