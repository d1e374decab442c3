r"""What Hamiltonian samplers learn in warm-up, each chain for itself: a step size and a metric.

A chain's metric is a factor L of the covariance \(\Sigma = LL^T\) that it has seen, (k,) where it
is diagonal and (k, k) where dense. With momenta \(p = L^{-T}u\), \(u \sim N(0, I)\), velocities
are Lu, kinetic energies \(|u|^2/2\) and inner products \(p^T \Sigma p' = u \cdot u'\): no other
code has to know which metric it is.

Arrays share memory with the sampler's tensors: on a few numbers NumPy takes a third of the time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

START, FIRST, END = 75, 25, 50  # transitions: before metrics, in the first window, after them
SEARCH = math.log(0.8)  # of the first step size: it changes the density by about this much
LIMITS = (1e-10, 1e7)  # of step sizes, in units of the metric
_GAMMA, _T0, _KAPPA = 0.05, 10.0, 0.75  # of dual averaging, Hoffman & Gelman 2014, 3.2


def window_ends(warmup: int) -> list[int]:
    """After which transitions metrics are learnt: windows that double, the last one longer.

    As in Stan: a start that finds the typical set, windows of 25, 50, ... and an end that finds the
    step size alone; less of each where there is no room, and no metric below 20 transitions.

    >>> window_ends(300), window_ends(1000), window_ends(100), window_ends(10)
    ([100, 150, 250], [100, 150, 250, 450, 950], [90], [])
    """
    if warmup < 20:
        return []
    if warmup < START + FIRST + END:
        return [warmup - warmup // 10]
    ends, end, length = [], START, FIRST
    while end < warmup - END:
        # where the next window would not fit, this one takes its place too
        last = end + length + 2 * length > warmup - END
        end = warmup - END if last else end + length
        ends.append(end)
        length *= 2
    return ends


def velocity(factor: Array, u: Array) -> Array:  # (n, k) or (n, k, k), (n, k) -> (n, k)
    """Lu."""
    return factor * u if factor.ndim == 2 else (factor @ u[:, :, None])[:, :, 0]


def force(factor: Array, gradient: Array) -> Array:  # the same shapes
    """Lᵀ times the gradient of the log density."""
    return factor * gradient if factor.ndim == 2 else (gradient[:, None] @ factor)[:, 0]


def begin(z: Tensor, *, scale: float, dense: bool) -> dict[str, Tensor]:
    """The state to adapt from: a metric of the prior's scale, and a step size to be searched."""
    n, k = z.shape
    zeros, factor = z.new_zeros(n), z.new_full((n, k), scale)
    return {
        "factor": torch.diag_embed(factor) if dense else factor,
        "step": zeros + 1.0,  # step size in use, in units of the metric
        "search": torch.ones(n, dtype=torch.int8),  # 0: found, 1: begins, 2: grows, 3: shrinks
        "log_step": zeros.clone(),  # weighted average of what dual averaging tried
        "shrink_to": zeros.clone(),
        "error": zeros.clone(),
        "updates": zeros.clone(),  # of dual averaging since the last search
        "warmed": torch.zeros(n, dtype=torch.int64),  # transitions in warm-up
        "seen": zeros.clone(),  # in this window
        "centre": z.new_zeros(n, k),
        "spread": z.new_zeros(n, k, k) if dense else z.new_zeros(n, k),
    }


def search(state: dict[str, Array], rows: Array, change: Array) -> None:
    """Doubles or halves step sizes until one step changes the log density by `SEARCH`.

    Hoffman & Gelman 2014, algorithm 4: `change` (r,) is what a step from where the chain stands
    changed.
    """
    up = change > SEARCH  # NaN is not
    phase = state["search"][rows]
    phase = np.where(phase == 1, np.where(up, 2, 3), phase)
    done = up == (phase == 3)
    step = state["step"][rows]
    step = np.where(done, step, np.where(up, step * 2, step / 2)).clip(*LIMITS)
    done |= (step == LIMITS[0]) | (step == LIMITS[1])
    state["step"][rows] = step
    state["search"][rows] = np.where(done, 0, phase)
    # dual averaging goes on from there
    log_step, rows = np.log(step[done]), rows[done]
    state["log_step"][rows] = log_step
    state["shrink_to"][rows] = math.log(10) + log_step
    state["error"][rows] = state["updates"][rows] = 0.0


def learn(
    state: dict[str, Array],
    rows: Array,  # (r,) chains that completed a transition in warm-up
    acceptance: Array,  # (r,) mean acceptance statistic of that transition
    *,
    target: float,
    ends: Array,
    scale: float,
) -> None:
    """One transition's worth of adaptation; "z" of the state is where it led."""
    # dual averaging, Hoffman & Gelman 2014, equation 6
    count = state["updates"][rows] + 1
    new = 1 / (count + _T0)
    error = (1 - new) * state["error"][rows] + new * (target - acceptance)
    log_step = state["shrink_to"][rows] - np.sqrt(count) / _GAMMA * error
    weight = count**-_KAPPA
    state["updates"][rows], state["error"][rows] = count, error
    state["log_step"][rows] = weight * log_step + (1 - weight) * state["log_step"][rows]
    state["step"][rows] = np.exp(log_step).clip(*LIMITS)

    warmed = state["warmed"][rows] + 1
    state["warmed"][rows] = warmed
    if not len(ends):
        return
    start = START if len(ends) > 1 or ends[0] >= START + FIRST else ends[0] // 6
    _see(state, rows[(warmed > start) & (warmed <= ends[-1])])
    due = (warmed[:, None] == ends).any(1)
    if due.any():
        _take_metric(state, rows[due], scale)


def _see(state: dict[str, Array], rows: Array) -> None:
    """Welford's running mean and squares of the chains' places."""
    seen, z = state["seen"][rows] + 1, state["z"][rows]
    old = z - state["centre"][rows]
    centre = state["centre"][rows] + old / seen[:, None]
    new = z - centre
    dense = state["spread"].ndim == 3
    state["spread"][rows] += old[:, :, None] * new[:, None] if dense else old * new
    state["seen"][rows], state["centre"][rows] = seen, centre


def _take_metric(state: dict[str, Array], rows: Array, scale: float) -> None:
    """The covariance of a window, drawn a little to a small multiple of the prior's, as in Stan."""
    n = state["seen"][rows][:, None]
    spread, floor = state["spread"][rows], 1e-3 * scale**2 * 5 / (n + 5)
    if spread.ndim == 2:
        state["factor"][rows] = np.sqrt(spread / (n - 1) * n / (n + 5) + floor)
    else:
        n, floor = n[:, None], floor[:, None] * np.eye(spread.shape[-1])
        state["factor"][rows] = np.linalg.cholesky(spread / (n - 1) * n / (n + 5) + floor)
    state["seen"][rows], state["centre"][rows], state["spread"][rows] = 0.0, 0.0, 0.0
    state["search"][rows], state["step"][rows] = 1, 1.0  # another metric: another step size
