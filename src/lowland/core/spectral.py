r"""Spectral normalisation: the vectors u and v of \(W / \sigma\), \(\sigma = u^T W v\), for any W.

`torch.nn.utils.spectral_norm` and its parametrisation hold u and v as buffers and improve them by
one power iteration a training step (Miyato et al. 2018). They lag behind the weights by little in
training, and belong to no other weights: for an average or a draw \(\sigma\) would be wrong by any
factor. So they are computed for each W: the leading singular vectors, from the smaller of its Gram
matrices in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm

_EXACT = 1024  # size of a Gram matrix up to which it is decomposed; beyond, subspace iterations
_BLOCK, _ITERATIONS = 16, 60


class Site(NamedTuple):
    """Where a weight is normalised: the names of the buffers u and v, and W (h, w) as it is now."""

    u: str
    v: str
    matrix: Callable[[], Tensor]


def sites(model: nn.Module) -> list[Site]:
    """Every spectral norm of a model, of both kinds.

    >>> [site.u for site in sites(nn.Sequential(nn.utils.spectral_norm(nn.Linear(2, 2))))]
    ['0.weight_u']
    """
    return [site for name, module in model.named_modules() for site in _sites(name, module)]


def _sites(name: str, module: nn.Module) -> Iterator[Site]:
    dot = f"{name}." if name else ""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm):
            key = f"{dot}{hook.name}"
            yield Site(f"{key}_u", f"{key}_v", partial(_of_hook, hook, module))
    for tensor, chain in getattr(module, "parametrizations", {}).items():
        for place, step in enumerate(chain):
            if isinstance(step, _SpectralNorm) and hasattr(step, "_u"):  # vectors have none
                key = f"{dot}parametrizations.{tensor}.{place}."
                yield Site(f"{key}_u", f"{key}_v", partial(_of_chain, chain, place))


def _of_hook(hook: SpectralNorm, module: nn.Module) -> Tensor:
    matrix: Tensor = hook.reshape_weight_to_matrix(getattr(module, f"{hook.name}_orig"))
    return matrix


def _of_chain(chain: ParametrizationList, place: int) -> Tensor:
    names = ["original"] if chain.is_tensor else [f"original{i}" for i in range(chain.ntensors)]
    weight, *more = (getattr(chain, name) for name in names)
    for step in list(chain)[:place]:  # the first may make one tensor of several, as weight norm's
        weight, more = step(weight, *more), []
    matrix: Tensor = chain[place]._reshape_weight_to_matrix(weight)  # type: ignore[operator]
    return matrix


def vector_names(sites: Iterable[Site]) -> set[str]:
    """The buffers that hold the vectors of these layers."""
    return {name for site in sites for name in (site.u, site.v)}


def leading_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:  # (h, w) -> (h,), (w,)
    """The leading left and right singular vectors, float64; may be vmapped.

    >>> u, v = leading_vectors(torch.diag(torch.tensor([1.0, 3.0])))
    >>> float(u @ torch.diag(torch.tensor([1.0, 3.0])).double() @ v)
    3.0
    """
    wide = matrix.double()
    tall = wide.shape[0] > wide.shape[1]
    wide = wide.mT if tall else wide
    gram = wide @ wide.mT
    if gram.shape[-1] <= _EXACT:
        u = torch.linalg.eigh(gram).eigenvectors[..., -1]
    else:
        block = gram[..., :_BLOCK]
        for _ in range(_ITERATIONS):
            block = gram @ torch.linalg.qr(block).Q
        basis = torch.linalg.qr(block).Q
        u = (basis @ torch.linalg.eigh(basis.mT @ gram @ basis).eigenvectors[..., -1:])[..., 0]
    v = F.normalize((wide.mT @ u[..., None])[..., 0], dim=-1)
    return (v, u) if tall else (u, v)
