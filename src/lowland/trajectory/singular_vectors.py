r"""Spectral normalisation in checkpoints: the singular vectors that belong to an average.

A layer holds W and unit vectors u, v, and computes with \(W / \sigma\), \(\sigma = u^T W v\). Power
iteration brings u and v to the first singular vectors of W, one step a batch (Miyato et al. 2018).
Those of a checkpoint belong to its own W, and their means to none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lowland.core.spectral import leading_vectors
from lowland.errors import LayoutError

_PARAMETRIZED = re.compile(r"^(?P<list>(?:.*\.)?parametrizations\.[^.]+)\.(?P<place>\d+)\._u$")


class SpectralNorm(NamedTuple):
    """The names of a weight and of its singular vectors."""

    weight: str
    u: str
    v: str


def spectral_norms(tensors: Mapping[str, Tensor]) -> list[SpectralNorm]:
    """The spectral norms in a checkpoint, by the names that `torch.nn.utils` gives them.

    `weight_orig` (`weight_bar` in older code), `weight_u`, `weight_v`, and
    `parametrizations.weight.original`, `parametrizations.weight.0._u`, `._v`.

    >>> layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(3, 2))
    >>> spectral_norms(layer.state_dict())[0].weight
    'parametrizations.weight.original'
    """
    norms = []
    for u in tensors:
        if not u.endswith("_u"):
            continue
        v = f"{u[:-1]}v"
        place = _PARAMETRIZED.match(u)
        if place and v in tensors:
            norms.append(SpectralNorm(f"{place['list']}.original", u, v))
        else:
            weights = (f"{u[:-1]}orig", f"{u[:-1]}bar")
            norms += [SpectralNorm(w, u, v) for w in weights if w in tensors and v in tensors]
    return norms


@torch.no_grad()
def singular_vectors(
    norm: SpectralNorm, weight: Tensor, last: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """u and v for another `weight`: its first left and right singular vectors, in float64.

    What power iteration converges to. `last`: the checkpoint that the norm is in, see `axis_of`.

    >>> layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(3, 2))
    >>> state = layer.state_dict()
    >>> norm = spectral_norms(state)[0]
    >>> w = torch.diag(torch.tensor([1.0, 4.0])) @ torch.eye(2, 3)
    >>> vectors = singular_vectors(norm, w, state)
    >>> float(vectors[norm.u] @ w.double() @ vectors[norm.v])
    4.0
    """
    u, v = leading_vectors(_matrix(weight, axis_of(norm, last)))
    sign = -1.0 if float(u @ last[norm.u].double()) < 0 else 1.0
    return {norm.u: sign * u, norm.v: sign * v}


def axis_of(norm: SpectralNorm, tensors: Mapping[str, Tensor]) -> int:
    """The axis of a weight that is the first of the matrix W: 1 for transposed convolutions.

    A file does not say it. The sizes of u and v do, and where two axes fit, the vectors themselves:
    they are near the singular vectors of their own weight.

    Raises:
        LayoutError: the weight is parametrized otherwise too, or no axis fits, or two alike.
    """
    place = _PARAMETRIZED.match(norm.u)
    if norm.weight not in tensors or (place and place["place"] != "0"):
        raise LayoutError(
            f"{norm.u} is of a weight with several parametrizations, which a file does not show; "
            "give --config, which names the model."
        )
    weight, u, v = (tensors[name].double() for name in norm)
    fits = [d for d in range(weight.ndim) if _matrix(weight, d).shape == (len(u), len(v))]
    if not fits:
        raise LayoutError(
            f"{norm.u} {tuple(u.shape)} and {norm.v} {tuple(v.shape)} fit no axis of {norm.weight} "
            f"{tuple(weight.shape)}; leave the weight to the last checkpoint with --where."
        )
    errors = sorted((_residual(_matrix(weight, d), u, v), d) for d in fits)
    least, best = errors[0]
    for error, d in errors[1:]:
        same = torch.equal(_matrix(weight, d), _matrix(weight, best))
        if not same and least > error / 2:
            raise LayoutError(
                f"axes {best} and {d} of {norm.weight} {tuple(weight.shape)} fit {norm.u} alike; "
                "give --config, which names the model."
            )
    return best


def _residual(matrix: Tensor, u: Tensor, v: Tensor) -> float:
    """How far u and v are from singular vectors of a matrix: the last step was on one of them."""
    left, right = matrix @ v, matrix.mT @ u
    sigma = u @ left
    ends = ((left, u), (right, v))
    return min(float((a - sigma * b).norm() / a.norm().clamp_min(1e-30)) for a, b in ends)


def _matrix(weight: Tensor, dim: int) -> Tensor:
    return weight.movedim(dim, 0).flatten(1)
