"""Streams of random numbers: one for each purpose and seed, and none that two of them share.

A stream of `seed + step` is that of another seed one step earlier, and all that draw from the bare
seed draw the same numbers. So the purpose and all that a stream depends on are hashed together.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_for(purpose: str, *key: int) -> int:
    """A seed in [0, 2^63) for a purpose and its key: the user's seed, then steps and numbers.

    A purpose belongs to one module, and names what is drawn.

    >>> seed_for("moves", 0, 1) == seed_for("moves", 0, 1)
    True
    >>> len({seed_for("moves", 0, 1), seed_for("moves", 1, 0), seed_for("moves", 0, 1, 0)})
    3
    """
    words = "/".join([purpose, *(str(operator.index(number)) for number in key)])
    digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stream(purpose: str, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for a purpose and its key, see `seed_for`; numbers differ between kinds of
    device.

    >>> torch.rand(1, generator=stream("a", 0)) == torch.rand(1, generator=stream("b", 0))
    tensor([False])
    """
    return torch.Generator(device).manual_seed(seed_for(purpose, *key))


@contextmanager
def fork_torch_rng(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seeds torch while the context is open; the caller's random state is restored after it.

    >>> with fork_torch_rng(3):
    ...     a = torch.rand(1)
    >>> torch.equal(a, torch.rand(1, generator=torch.Generator().manual_seed(3)))
    True
    """
    device = torch.device(device)
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed seeds every device
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
