"""Standard normal noise that is a function of (seed, draw, place), and of nothing else.

Values come in fixed chunks of 2^20, each from a generator of its own, so that threads, shards and
batching do not change a draw, and chunks can be made in parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from lowland import checks
from lowland.errors import ConfigError

CHUNK = 1 << 20
LOW_RANK = (1 << 12) - 1  # the chunk number that is kept for noise that is no weight's
DATA = LOW_RANK - 1  # for noise in data: independent of the noise of the weights
_MASK = (1 << 32) - 1


def normal(size: int, *, seed: int, draw: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(size,) standard normal values of one draw, on the CPU.

    >>> a = normal(5, seed=0, draw=3)
    >>> torch.equal(a, normal(5, seed=0, draw=3)), torch.equal(a, normal(5, seed=1, draw=3))
    (True, False)
    """
    out = torch.empty(size, dtype=dtype)

    def fill(start: int) -> None:
        chunk = out[start : start + CHUNK]
        chunk.normal_(generator=generator(seed, draw, start // CHUNK))

    # `normal_` itself runs on one thread and lets go of the interpreter's lock
    in_parallel(fill, range(0, size, CHUNK))
    return out


def small_normal(size: int, *, seed: int, draw: int, dtype: torch.dtype) -> Tensor:
    """(size,) values beside those of the weights: the coefficients of a low-rank factor."""
    return torch.empty(size, dtype=dtype).normal_(generator=generator(seed, draw, LOW_RANK))


def uniform(*, seed: int, draw: int) -> float:
    """One number in [0, 1)."""
    return float(torch.rand((), generator=generator(seed, draw, LOW_RANK), dtype=torch.float64))


def generator(seed: int, draw: int, chunk: int) -> torch.Generator:
    """The generator of one chunk.

    torch seeds its CPU generator with 32 bits. For one seed the key is a bijection of
    (draw, chunk), up to 2^20 draws of 2^12 chunks, so that no two chunks share their noise.
    """
    # NumPy's integers overflow
    seed, draw = checks.whole("seed", seed), checks.whole("draw", draw)
    if not (0 <= draw < 1 << 20 and 0 <= chunk < 1 << 12):
        raise ConfigError(
            f"draw: expected one of {1 << 20} draws of {1 << 12} chunks, got draw {draw}, chunk "
            f"{chunk}; use another seed for more."
        )
    index = draw << 12 | chunk
    salt = _mix((seed & _MASK) ^ _mix(seed >> 32 & _MASK) ^ 0x9E3779B9)
    return torch.Generator().manual_seed(_mix((_mix(index) + salt) & _MASK))


def seed_of(generator: torch.Generator | None, seed: int) -> int:
    """`seed`, or one drawn from the generator where there is one."""
    if generator is None:
        return seed
    number = torch.randint(1 << 62, (), generator=generator, device=generator.device)
    return int(number)


def in_parallel(work: Callable[[int], None], items: Iterable[int]) -> None:
    """Runs `work` on each item on as many threads as torch uses."""
    items = list(items)
    workers = min(torch.get_num_threads(), len(items))
    if workers <= 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(work, items):
            pass


def _mix(x: int) -> int:
    """A bijection of 32-bit integers that spreads every bit (the finaliser of MurmurHash3)."""
    x ^= x >> 16
    x = x * 0x85EBCA6B & _MASK
    x ^= x >> 13
    x = x * 0xC2B2AE35 & _MASK
    return x ^ x >> 16
