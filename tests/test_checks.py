"""Arguments of users: converted where the meaning is clear, otherwise an error of one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from lowland import checks
from tests.linear import W, X, Y, net, surface, train


@pytest.mark.parametrize(
    "make",
    [
        lambda model: ll.ParamLayout(model),
        lambda model: surface(model=model),
        lambda model: train([(X, Y)], model),
        lambda model: ll.Members([model, model]),
        lambda model: ll.align(model, W, W),
        lambda model: ll.directions(model, W),
        lambda model: ll.GaussianHead(model),
    ],
    ids=["layout", "surface", "sgd", "members", "align", "directions", "head"],
)
def test_a_class_is_no_model(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ll.ConfigError, match="got the class Linear; make a model of it"):
        make(nn.Linear)
    with pytest.raises(ll.ConfigError, match=r"expected an nn.Module, got <lambda>"):
        make(lambda x: x)


@pytest.mark.parametrize(
    "make",
    [
        lambda device: surface(device=device),
        lambda device: train([(X, Y)], device=device),
        lambda device: ll.SWA(ll.ParamLayout(net()), device=device),
        lambda device: ll.EMA(ll.ParamLayout(net()), device=device),
        lambda device: ll.SWAG(ll.ParamLayout(net()), device=device),
        lambda device: ll.FrequentDirections(ll.ParamLayout(net()), device=device),
        lambda device: ll.Members([net()], device=device),
        lambda device: ll.Line(W, -W).to(device),
    ],
)
def test_missing_devices_are_an_error(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ll.ConfigError, match=r"device: expected 'cpu', 'cuda' .* got 'gpu'"):
        make("gpu")
    make("cpu")


@pytest.mark.parametrize("run", [surface, lambda **options: train([(X, Y)], **options)])
def test_autocast_by_name(run: Callable[..., Any]) -> None:
    run(autocast="bfloat16")
    for wrong in ("float", torch.int32, torch.float64, 16):
        with pytest.raises(ll.ConfigError, match="autocast: expected a floating-point dtype"):
            run(autocast=wrong)


def test_autocast_by_name_is_that_dtype() -> None:
    w = surface().layout.flatten(net())
    assert torch.equal(surface(autocast="bfloat16")(w), surface(autocast=torch.bfloat16)(w))


def test_settings_that_would_silently_change_metrics() -> None:
    with pytest.raises(ll.ConfigError, match="bn_rows: expected a whole number of at least 2"):
        surface(bn_rows=-1)
    with pytest.raises(ll.ConfigError, match="target_mean: expected a finite number, got nan"):
        ll.Regression(target_mean=[0.0, math.nan])
    with pytest.raises(ll.ConfigError, match="target_std: expected a number above 0, got 0"):
        ll.Regression(target_std=torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    "make",
    [
        lambda rank: ll.SWAG(ll.ParamLayout(net()), rank=rank),
        lambda rank: ll.SWAG(ll.ParamLayout(net()), rank=rank, deviations_dtype="bfloat16"),
        lambda rank: ll.FrequentDirections(ll.ParamLayout(net()), rank=rank),
    ],
)
def test_ranks_larger_than_memory_are_an_error(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ll.ConfigError, match=r"rank: 1,000,000,000,000 takes more memory"):
        make(1e12)
    make(4.0)


def test_numbers_are_converted_to_python_numbers() -> None:
    """Files, checkpoints and fingerprints contain types of `json`."""
    swag = ll.SWAG(ll.ParamLayout(net()), rank=np.int64(4))
    assert type(swag.rank) is int
    batches = ll.Batches((X, Y), batch_size=torch.tensor(4), seed=np.int64(1))
    assert type(batches.batch_size) is int
    assert type(batches.seed) is int
    assert type(checks.number("scale", np.float32(0.5))) is float


def test_numpy_scalars_are_numbers(tmp_path):
    post = ll.Gaussian(torch.zeros(3), torch.ones(3))
    assert torch.equal(post.draw(0, seed=np.int32(5)), post.draw(0, seed=5))
    ema = ll.EMA(ll.ParamLayout(nn.Linear(1, 1)), decay=np.float64(0.5))
    ema.update(torch.ones(2))
    ema.save(tmp_path / "ema")
    assert ll.EMA.load(tmp_path / "ema").decay == 0.5
    assert ll.Regression(noise_variance=np.float32(0.5)).noise_variance == 0.5
    with pytest.raises(ll.ConfigError):
        ll.Regression(noise_variance=True)
