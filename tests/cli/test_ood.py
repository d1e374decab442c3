"""Corrupted and out-of-distribution examples of a run, against the functions that make them."""

import pytest
import torch

import lowland as ll
from lowland.cli.ood import CompareOptions, Corruption, ShiftedData
from lowland.errors import ConfigError, DataError
from lowland.runs.config import check_config, check_section
from lowland.runs.setup import Setup

MEAN, STD = [0.3], [0.4]


def images(normalise=(MEAN, STD)):
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(30, 1, 8, 8, generator=g), torch.arange(30) % 2
    x = (x - MEAN[0]) / STD[0]
    return {"train": (x, y), "validation": (x, y), "test": (x, y), "normalise": normalise}


def vectors():
    x, y = torch.randn(30, 64), torch.arange(30) % 2
    return {"train": (x, y), "validation": (x, y), "test": (x, y)}


def raw():
    return {"test": (torch.full((9, 1, 8, 8), 0.25), torch.zeros(9)), "name": "grey"}


def net():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))


def setup(data="images", **args):
    body = {
        "model": {"name": f"{__name__}:net"},
        "data": {"name": f"{__name__}:{data}", "args": args},
        "eval_batch_size": 7,
    }
    return Setup(check_config(body, where="test"))


def test_corrupted_sets_are_those_of_pixels():
    options = CompareOptions(
        kinds=["contrast", "gaussian_noise"],
        strengths=[4, 2, 4],
        ood=["noise"],
        examples=20,
        seed=3,
    )
    one = setup()
    shifted = ShiftedData(one, options)
    assert [each.name for each in shifted.corruptions] == [
        "corrupted/contrast-2",
        "corrupted/contrast-4",
        "corrupted/gaussian_noise-2",
        "corrupted/gaussian_noise-4",
    ]
    x, y = one.data["test"]
    for each in shifted.corruptions:
        batches = list(each.loader(one))
        found = torch.cat([batch.args[0] for batch in batches])
        pixels = ll.corrupt(x[:20] * STD[0] + MEAN[0], each.kind, each.strength, seed=3)
        torch.testing.assert_close(found, (pixels - MEAN[0]) / STD[0])
        assert torch.equal(torch.cat([batch.target for batch in batches]), y[:20])


def test_the_seed_is_a_setting_of_noise_alone():
    shifted = ShiftedData(setup(), CompareOptions(strengths=(1,), examples=20, seed=3))
    seeds = {each.kind: each.seed for each in shifted.corruptions}
    assert seeds == {"gaussian_noise": 3, "gaussian_blur": 0, "contrast": 0, "pixelate": 0}
    assert shifted.corruptions[0] == Corruption("gaussian_noise", 1, 3, 20, (0.3,), (0.4,))


def test_noise_has_the_moments_of_the_test_examples_and_a_fingerprint_of_its_own():
    one = setup()
    sets = [
        ShiftedData(one, CompareOptions(kinds=[], examples=20, seed=seed, ood=["noise", "uniform"]))
        for seed in (0, 1)
    ]
    x = one.data["test"][0][:20]
    assert torch.equal(sets[1].sets["noise"], ll.noise_like(x, kind="gaussian", seed=1))
    assert torch.equal(sets[1].sets["uniform"], ll.noise_like(x, kind="uniform", seed=1))
    first, second = (each.passes("seed-0")[1][0] for each in sets)
    assert (first.name, first.size, first.sources[0].name) == ("ood/noise", 20, "seed-0/ood/noise")
    assert first.sources[0].fingerprint != second.sources[0].fingerprint
    assert torch.equal(torch.cat([batch for (batch,) in first.loader]), sets[0].sets["noise"])


def test_another_data_set_is_normalised_as_the_run():
    options = CompareOptions(kinds=[], ood=[f"{__name__}:raw"])
    sets = ShiftedData(setup(), options).sets
    torch.testing.assert_close(sets["grey"], torch.full((9, 1, 8, 8), (0.25 - 0.3) / 0.4))


def test_what_does_not_fit_is_noted_or_refused_on_request():
    one = setup("vectors")
    shifted = ShiftedData(one, CompareOptions())
    assert shifted.corruptions == []
    assert [note.partition(":")[0] for note in shifted.notes] == ["No corrupted examples"]
    assert len(shifted.sets["noise"]) == 30
    with pytest.raises(DataError, match="--kinds: corruptions are for images"):
        ShiftedData(one, CompareOptions(kinds=["contrast"]))
    with pytest.raises(DataError, match=r"expected examples of shape \(64,\).*got \(1, 8, 8\)"):
        ShiftedData(one, CompareOptions(ood=[f"{__name__}:raw"]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kinds": ["fog"]}, r"kinds: expected some of gaussian_noise.*, got \['fog'\]"),
        ({"strengths": ["9"]}, r"strengths: expected some of 1, 2, 3, 4, 5, got \['9'\]"),
        (
            {"baselines": ["magic"]},
            r"expected some of temperature, dropout, laplace, got \['magic'\]",
        ),
    ],
)
def test_options_that_do_not_exist(values, message):
    with pytest.raises(ConfigError, match=message):
        check_section(CompareOptions, values, where="options")


def test_normalisation_that_is_none():
    with pytest.raises(ConfigError, match=r"normalise: expected \(means, deviations\)"):
        ShiftedData(setup(normalise=(0.5, "no")), CompareOptions())
