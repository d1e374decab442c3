"""Batches that do not fit the model: the message contains the reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from tests.linear import W, X, Y, surface, train

NAN = torch.where(torch.arange(20)[:, None] < 3, math.nan, X)
#: all functions with a loop over batches
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


def test_models_that_impute_missing_values_accept_nan() -> None:
    class Filling(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.nan_to_num(0.0))

    filling = surface([(NAN, Y)], Filling(3, 2))
    assert bool(torch.isfinite(filling(W)))
    assert torch.equal(filling(W), surface([(NAN.nan_to_num(0.0), Y)])(W))


def test_nan_weights_are_not_reported_as_nan_inputs() -> None:
    wide = ll.Gaussian(torch.full((8,), 1e38), torch.full((8,), 1e38))
    with pytest.raises(ll.NonFiniteError, match="posterior's scale"):
        ll.predict(surface(), wide, samples=3)
