"""How many threads torch uses, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lowland.errors import ConfigError

MAX_THREADS = 1024  # torch crashes on tens of thousands, which a file may ask for


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Sets the number of threads, and sets it back, whatever was set inside.

    One is right for operations of a tenth of a millisecond, where several threads wait longer than
    they work: beside a busy neighbour a batch of CIFAR-10 took 27 ms to prepare on two threads, and
    1.1 ms on one.

    >>> with using_threads(1):
    ...     torch.get_num_threads()
    1
    """
    if not 1 <= count <= MAX_THREADS:
        raise ConfigError(f"threads: expected 1 to {MAX_THREADS}, got {count}.")
    before = torch.get_num_threads()
    _set(count)
    try:
        yield
    finally:
        _set(before)


def _set(count: int) -> None:
    if torch.get_num_threads() != count:  # to set it takes as long as a small network's operations
        torch.set_num_threads(count)
