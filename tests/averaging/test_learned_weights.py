"""Learned weights against scipy's optimum on the simplex, for a convex loss."""

import numpy as np
import pytest
import torch
from scipy import optimize

from lowland.averaging.learned_weights import held_out_nlls, learned_weights
from lowland.averaging.validation import Validation
from lowland.averaging.weighted_mean import weighted_mean
from lowland.core import Point
from tests.averaging import least_squares


def case(seed: int = 0):
    x, y, w = least_squares.problem(40, 5, noise=0.5, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    rows = w + torch.randn(4, 5, generator=generator, dtype=torch.float64)
    validation = Validation(least_squares.surface(x, y), least_squares.batches(x, y))
    return x, y, rows, [Point(row) for row in rows], validation


def optimum(x, y, rows) -> float:
    """The lowest mean NLL on the simplex, by SLSQP."""
    m = len(rows)
    result = optimize.minimize(
        lambda c: least_squares.nlls(x, y, torch.from_numpy(c) @ rows).mean(),
        np.full(m, 1 / m),
        bounds=[(0, 1)] * m,
        constraints={"type": "eq", "fun": lambda c: c.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return float(result.fun)


@pytest.mark.parametrize("seed", range(4))
def test_the_weights_reach_the_optimum_on_the_simplex(seed: int) -> None:
    x, y, rows, points, validation = case(seed)
    weights = learned_weights(validation, points, steps=60)
    assert float(weights.sum()) == pytest.approx(1)
    assert bool((weights >= 0).all())
    nll = least_squares.nlls(x, y, weights @ rows).mean()
    assert nll == pytest.approx(optimum(x, y, rows), abs=1e-6)
    uniform = least_squares.nlls(x, y, rows.mean(0)).mean()
    assert nll < uniform - 1e-3  # the uniform average is a broken twin


def test_the_start_does_not_matter_where_the_loss_is_convex() -> None:
    _, _, rows, points, validation = case()
    start = torch.tensor([8.0, 1.0, 1.0, 2.0])
    a = learned_weights(validation, points, steps=60)
    b = learned_weights(validation, points, start=start, steps=60)
    torch.testing.assert_close(a @ rows, b @ rows, atol=1e-3, rtol=0)


def test_held_out_nlls_are_those_of_weights_learned_from_the_other_half() -> None:
    x, y, rows, points, validation = case()
    held_out = held_out_nlls(validation, points).numpy()
    half = validation.in_first_half.numpy()
    for learned_from, evaluated_on in ((half, ~half), (~half, half)):
        ours = held_out[evaluated_on].mean()
        best = optimum(x[learned_from], y[learned_from], rows)
        weights = learned_weights(
            validation, points, validation.halves()[int(evaluated_on is half)]
        )
        assert least_squares.nlls(x[learned_from], y[learned_from], weights @ rows).mean() == (
            pytest.approx(best, abs=1e-5)
        )
        point = weighted_mean(points, weights)
        expected = least_squares.nlls(x, y, point.weights)[evaluated_on].mean()
        assert ours == pytest.approx(expected, rel=1e-9)


def test_one_member_has_all_the_weight() -> None:
    *_, points, validation = case()
    assert learned_weights(validation, points[:1]).tolist() == [1.0]
    assert validation.gradients == 0
