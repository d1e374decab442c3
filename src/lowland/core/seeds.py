"""Streams of random numbers: one for each purpose and seed, and none that two of them share.

A stream of `seed + step` is that of another seed one step earlier, and all that draw from the bare
seed draw the same numbers. So the purpose and all that a stream depends on are hashed together.
"""

from __future__ import annotations

import hashlib
import operator

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


def stream(purpose: str, *key: int) -> torch.Generator:
    """A generator on the CPU for a purpose and its key, see `seed_for`.

    >>> torch.rand(1, generator=stream("a", 0)) == torch.rand(1, generator=stream("b", 0))
    tensor([False])
    """
    return torch.Generator().manual_seed(seed_for(purpose, *key))
