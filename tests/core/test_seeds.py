"""No two (seed, purpose) pairs share a stream, and nobody makes one by hand."""

import ast
import itertools
from pathlib import Path

import pytest
import torch

import lowland
from lowland.core.seeds import seed_for, stream

ROOT = Path(lowland.__file__).parent
TREES = {
    file.relative_to(ROOT).as_posix(): ast.parse(file.read_text()) for file in ROOT.rglob("*.py")
}

#: modules that may seed a generator themselves, each by its own rule
OWN = {
    "core/seeds.py",
    "train/rng.py",  # `seed_all`: likewise
    "runs/setup.py",  # a model's first weights come from the global generator
    "posteriors/noise.py",  # a bijection of (draw, chunk) for each seed
    "train/batches.py",  # (seed, epoch, batch) through NumPy's SeedSequence
    # splits of data sets, which keep their bare seeds
    *(f"zoo/{name}.py" for name in ("tensors", "uci", "digits", "spirals", "folder")),
}
MAKERS = {"manual_seed", "default_rng", "SeedSequence", "seed_all", "RandomState"}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else None
            yield (name or getattr(node.func, "id", "")), node


def purposes():
    """(purpose, module) of each stream in the library."""
    for module, tree in TREES.items():
        for name, node in calls(tree):
            if name in ("seed_for", "stream") and module != "core/seeds.py":
                assert isinstance(node.args[0], ast.Constant), f"{module}: a purpose is a literal"
                yield node.args[0].value, module


def test_a_purpose_is_used_once():
    streams = list(purposes())
    assert len(streams) > 20
    names = [purpose for purpose, _ in streams]
    assert not {(p, m) for p, m in streams if names.count(p) > 1}
    assert not [name for name in names if "/" in name]  # the separator of a key


def test_streams_of_purposes_and_seeds_are_all_different():
    names = [purpose for purpose, _ in purposes()]
    keys = [(p, *k) for p in names for k in itertools.product(range(20), range(5))]
    keys += [(p, s) for p in names for s in range(20)]
    seeds = {seed_for(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    # torch takes 32 bits of a CPU generator's seed: by chance two of n agree n^2 / 2^33 times
    assert len({seed & 0xFFFFFFFF for seed in seeds}) >= len(keys) - 1
    assert not seeds & set(range(1 << 20))  # nor equal to a small seed of a user


def test_no_seed_is_a_sum():
    """`seed + step` is the next seed's stream a step earlier."""

    def looks_like_a_seed(node):
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        return name == "seed"

    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.BinOp) and (
                looks_like_a_seed(node.left) or looks_like_a_seed(node.right)
            ):
                allowed = module in ("posteriors/noise.py", "train/rng.py")
                assert allowed, f"{module}:{node.lineno}: give the parts to seed_for"


def test_generators_are_seeded_in_few_places():
    docs = {"plots/trace.py", "plots/rank.py"}  # in examples
    for module, tree in TREES.items():
        for name, node in calls(tree):
            if name in MAKERS and module not in OWN | docs and module != "train/trainer.py":
                raise AssertionError(f"{module}:{node.lineno}: {name}; take lowland.core.seeds")
    for name, node in calls(TREES["train/trainer.py"]):
        if name in MAKERS:
            assert ast.unparse(node).startswith("seed_all(seed_for(")


def correlation(make, pairs=60, size=200):
    """The mean correlation of draws with neighbouring seeds, in standard errors."""
    values = torch.stack([make(seed, size) for seed in range(pairs + 1)])
    values = (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True)
    return float((values[1:] * values[:-1]).mean(1).sum() / (pairs / size) ** 0.5)


def test_neighbouring_seeds_do_not_correlate():
    def keyed(seed, size):
        return torch.cat(
            [torch.randn(size // 4, generator=stream("step", seed, t)) for t in range(4)]
        )

    def added(seed, size):
        return torch.cat(
            [
                torch.randn(size // 4, generator=torch.Generator().manual_seed(seed + t))
                for t in range(4)
            ]
        )

    assert abs(correlation(keyed)) < 4
    shifted = torch.stack([added(seed, 200) for seed in range(2)])
    assert torch.equal(shifted[0, 50:], shifted[1, :150])  # the effect of a sum


@pytest.mark.parametrize("key", [(0.5,), ("a",)])
def test_a_key_is_whole_numbers(key):
    with pytest.raises(TypeError):
        seed_for("purpose", *key)
