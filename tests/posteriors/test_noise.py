import math

import pytest
import torch
from scipy import stats

from lowland import ConfigError
from lowland.posteriors import noise

CHUNK = 1 << 10


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(noise, "CHUNK", CHUNK)


def chunk(number, length, *, seed=0, draw=0, dtype=torch.float32):
    generator = noise.generator(seed, draw, number)
    return torch.empty(length, dtype=dtype).normal_(generator=generator)


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_draw_is_its_chunks_one_after_the_other(small_chunks, size, dtype):
    whole = noise.normal(size, seed=7, draw=2, dtype=dtype)
    pieces = [
        chunk(k, min(CHUNK, size - k * CHUNK), seed=7, draw=2, dtype=dtype)
        for k in range(math.ceil(size / CHUNK))
    ]
    assert torch.equal(whole, torch.cat(pieces))


def test_the_real_chunk_boundary():
    size = noise.CHUNK + 3
    whole = noise.normal(size, seed=0, draw=0)
    assert torch.equal(whole[: noise.CHUNK], chunk(0, noise.CHUNK))
    assert torch.equal(whole[noise.CHUNK :], chunk(1, 3))


def test_a_prefix_of_whole_chunks_is_the_same_whatever_follows(small_chunks):
    short = noise.normal(2 * CHUNK, seed=0, draw=1)
    long = noise.normal(5 * CHUNK + 17, seed=0, draw=1)
    assert torch.equal(long[: 2 * CHUNK], short)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_draw(small_chunks, threads):
    expected = torch.cat([chunk(k, CHUNK) for k in range(9)])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(noise.normal(9 * CHUNK, seed=0, draw=0), expected)
    finally:
        torch.set_num_threads(before)


def test_no_two_chunks_of_a_seed_share_a_key():
    def keys(seed):
        draws, chunks = [*range(256), (1 << 20) - 1], [*range(64), noise.LOW_RANK]
        return [noise.generator(seed, d, c).initial_seed() for d in draws for c in chunks]

    result = keys(0)
    assert len(set(result)) == len(result)
    for seed in (1, 2, -1, 1 << 40):  # and seeds do not share them at the same place
        assert not any(a == b for a, b in zip(result, keys(seed), strict=True))


def test_the_key_is_a_bijection_of_the_place():
    assert len({noise._mix(x) for x in range(1 << 16)}) == 1 << 16
    # the inverse of the finaliser gives every key back
    inverse = [pow(constant, -1, 1 << 32) for constant in (0xC2B2AE35, 0x85EBCA6B)]

    def unmix(x):
        x ^= x >> 16
        x = x * inverse[0] & noise._MASK
        x ^= x >> 13 ^ x >> 26
        x = x * inverse[1] & noise._MASK
        return x ^ x >> 16

    for x in (0, 1, 2**31, 2**32 - 1, 123456789):
        assert unmix(noise._mix(x)) == x


@pytest.mark.parametrize(("draw", "number"), [(1 << 20, 0), (-1, 0), (0, 1 << 12)])
def test_what_would_repeat_another_draw_is_refused(draw, number):
    with pytest.raises(ConfigError, match="use another seed"):
        noise.generator(0, draw, number)


def test_seeds_beyond_32_bits_count():
    draws = [noise.normal(8, seed=seed, draw=0) for seed in (1, 1 + (1 << 32), 1 + (1 << 33), -1)]
    assert len({tuple(d.tolist()) for d in draws}) == 4


def test_values_are_standard_normal():
    x = noise.normal(1 << 20, seed=0, draw=0).double()
    error = len(x) ** -0.5
    assert abs(float(x.mean())) < 5 * error
    assert abs(float(x.var()) - 1) < 5 * error * 2**0.5
    assert abs(float((x**3).mean())) < 5 * error * 15**0.5
    assert abs(float((x**4).mean()) - 3) < 5 * error * 96**0.5
    assert stats.kstest(x[: 1 << 17].numpy(), "norm").pvalue > 1e-3


def test_first_values_of_many_keys_are_standard_normal_and_independent():
    # nearby seeds of the Mersenne twister start alike unless they are spread
    for keys in ([(0, d) for d in range(4000)], [(s, 0) for s in range(4000)]):
        x = torch.stack([noise.normal(2, seed=s, draw=d, dtype=torch.float64) for s, d in keys])
        assert stats.kstest(x.flatten().numpy(), "norm").pvalue > 1e-3
        correlation = torch.corrcoef(torch.stack([x[:-1, 0], x[1:, 0], x[:-1, 1]]))
        assert float(correlation.triu(1).abs().max()) < 5 * 4000**-0.5


@pytest.mark.parametrize("other", [{"seed": 1, "draw": 0}, {"seed": 0, "draw": 1}])
def test_draws_and_seeds_are_uncorrelated(other):
    a = noise.normal(1 << 18, seed=0, draw=0)
    b = noise.normal(1 << 18, **other)
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 5 / 512


def test_the_coefficients_are_no_weights_noise():
    z = noise.small_normal(20, seed=0, draw=0, dtype=torch.float32)
    assert not torch.equal(z, noise.normal(20, seed=0, draw=0))


def test_in_parallel_hands_errors_on():
    def work(item):
        if item == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        noise.in_parallel(work, range(5))
