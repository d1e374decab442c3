"""What users pass: taken where it can be meant, refused in one sentence where it cannot."""

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

X, Y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
NAN = torch.where(torch.arange(20)[:, None] < 3, math.nan, X)
W = torch.linspace(-1, 1, 8)


def net() -> nn.Linear:
    return nn.Linear(3, 2)


def surface(data: Any = None, model: Any = None, **options: Any) -> ll.LossSurface:
    return ll.LossSurface(model or net(), ll.Classification(), data or [(X, Y)], **options)


def train(data: Any, model: Any = None, **options: Any) -> Any:
    return ll.sgd(model or net(), ll.Classification(), data, epochs=1, **options)


#: everything that reads a batch, each by its own loop
READERS: dict[str, Callable[[Any], Any]] = {
    "surface": lambda data: surface(data)(W),
    "gradient": lambda data: surface(data).value_and_grad(W),
    "predict": lambda data: ll.predict(surface(), W, data),
    "evaluate": lambda data: surface().evaluate(W, data),
    "scan": lambda data: ll.scan(ll.Line(W, -W), surface(), resolution=3, loader=data),
    "path": lambda data: ll.path(ll.Line(W, -W), surface(data), points=3),
    "infer": lambda data: ll.infer(
        ll.Subspace.random(W, rank=2), surface(data), chains=2, samples=4, warmup=4
    ),
    "fit": lambda data: ll.fit(ll.Bezier.between(W, -W), surface(data), epochs=1),
    "sgd": train,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([(X, ["cat", "dog"] * 10)], "the labels are words, such as 'cat': number the classes"),
        ([(X, np.array(["cat", "dog"] * 10))], "the labels are words, such as 'cat'"),
        ([(X, Y.numpy())], "the targets are of type ndarray; make them a tensor"),
        ([(X, Y.tolist())], "the targets are of type list; make them a tensor"),
        ([(X[:, :2], Y)], r"failed on inputs float32 \(20, 2\): .* give it the shapes"),
        ([(X.long(), Y)], r"failed on inputs int64 \(20, 3\): .* give it the shapes"),
        ([(X.numpy(), Y)], r"failed on inputs ndarray: .* give it the shapes"),
    ],
    ids=["words", "array of words", "array", "list", "width", "integers", "inputs"],
)
def test_batches_that_do_not_fit(read: Callable[[Any], Any], data: Any, message: str) -> None:
    with pytest.raises(ll.DataError, match=message):
        read(data)


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("fit", "sgd")])
def test_inputs_that_are_not_finite(name: str) -> None:
    with pytest.raises(ll.DataError, match="3 of 20 examples of a batch hold NaN or infinite"):
        READERS[name]([(NAN, Y)])


@pytest.mark.parametrize("name", ["fit", "sgd"])
def test_training_names_the_batch_that_is_not_finite(name: str) -> None:
    with pytest.raises(ll.NonFiniteError, match=r"step 1 .* its inputs may hold NaN"):
        READERS[name]([(NAN, Y)])


def test_models_that_fill_in_missing_values_take_them() -> None:
    class Filling(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.nan_to_num(0.0))

    filling = surface([(NAN, Y)], Filling(3, 2))
    assert bool(torch.isfinite(filling(W)))
    assert torch.equal(filling(W), surface([(NAN.nan_to_num(0.0), Y)])(W))


def test_weights_that_are_at_fault_are_not_put_on_the_inputs() -> None:
    wide = ll.Gaussian(torch.full((8,), 1e38), torch.full((8,), 1e38))
    with pytest.raises(ll.NonFiniteError, match="posterior's scale"):
        ll.predict(surface(), wide, samples=3)


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
def test_devices_that_there_are_not(make: Callable[[Any], Any]) -> None:
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


def test_settings_that_change_figures_in_silence() -> None:
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
def test_ranks_that_no_memory_holds(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ll.ConfigError, match=r"rank: 1,000,000,000,000 takes more memory"):
        make(1e12)
    make(4.0)


def test_numbers_are_plain_ones_inside() -> None:
    """Files, checkpoints and fingerprints hold what `json` knows."""
    swag = ll.SWAG(ll.ParamLayout(net()), rank=np.int64(4))
    assert type(swag.rank) is int
    batches = ll.Batches((X, Y), batch_size=torch.tensor(4), seed=np.int64(1))
    assert type(batches.batch_size) is int
    assert type(batches.seed) is int
    assert type(checks.number("scale", np.float32(0.5))) is float
