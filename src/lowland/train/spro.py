"""Simplexes of low loss, grown vertex by vertex, around one mode or between several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from lowland import checks
from lowland.core import LossSurface, Point
from lowland.geometry import Simplex, SimplicialComplex
from lowland.train.growth_options import GrowthKeywords, growth_options
from lowland.train.simplex_growth import SimplexGrowth


def spro(
    surface: LossSurface,
    w: Tensor | Point,
    *,
    vertices: int = 4,
    epochs: int = 10,
    strength: float = 1e-6,
    **options: Unpack[GrowthKeywords],
) -> Simplex:
    r"""A simplex of low loss around a mode: simplicial pointwise random optimisation.

    For each vertex, `Simplex.grow` adds it near the centroid, and `fit` moves it to minimise
    \(E\, L(w) - \lambda_j \log V\) over the simplex while the others stay (Benton et al. 2021,
    section 4). An ensemble of simplexes (ESPRO) is
    `Mixture([Uniform(spro(surface, w)) for w in modes])`.

    A new vertex is accepted where both hold; otherwise it is left out, with a warning, and growth
    ends: the highest loss at it and at `points` random points of the simplex is at most the mode's
    plus `rise`; and it stands higher above the others than before its fit.

    Args:
        w: the mode, (P,), the first vertex.
        vertices: how many in the end, the mode included.
        epochs: of the fit of each vertex.
        strength: λ* of the paper's rule \(\lambda_j = \max(\lambda^* / \log V, 10^{-8})\), V being
            the volume of a random initialisation: all vertices noise as long as the mode. It is
            at most λ*.
        log_volume: λ_j itself, in place of the rule.
        samples: points of the simplex a step, 5 as in the paper; see `fit`.
        strategy: "accumulate", or "vmap", which is faster for small networks; see `fit`.
        loader, weight_decay: see `fit`.
        jitter: see `Simplex.grow`.
        rise: in nats an item. points: see above. count: examples of the surface's loader that
            these losses are evaluated on; None: all.
        validate: returns further metrics of the shape after each vertex, for the log.
        options: `TrainOptions`, or keyword arguments with the names of its fields, see `fit`. The
            seed decides all randomness. The same call continues from its checkpoint; a call with
            more vertices adds to a finished one. The fit under way has a file beside it.

    Returns:
        The simplex, whose `log` is a `GrowthResult`: volume and losses at each number of vertices,
        and why it stopped.

    Raises:
        ConfigError: fewer than two vertices, or more than P + 1; a checkpoint of other settings.
            Others: see `fit`.

    >>> import torch
    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> data = [(torch.eye(3), torch.zeros(3, 1))]  # L is the square of |w|, but for constants
    >>> surface = LossSurface(nn.Linear(3, 1, bias=False), Regression(noise_variance=1.0), data)
    >>> simplex = spro(surface, torch.full((3,), 0.1), vertices=3, epochs=50, log_volume=1e-3)
    >>> simplex.log.vertices.tolist(), bool(simplex.log.loss_max[-1] < simplex.log.bound)
    ([1, 2, 3], True)
    """
    vertices = checks.whole("vertices", vertices, least=2)  # the mode included
    growth, train = growth_options(epochs, strength, options)
    return SimplexGrowth(surface, Simplex([w]), "vertices", growth, train).grow_to(vertices)


def connect_modes(
    surface: LossSurface,
    modes: Sequence[Tensor | Point],
    *,
    connectors: int = 2,
    epochs: int = 10,
    strength: float = 0.1,
    **options: Unpack[GrowthKeywords],
) -> SimplicialComplex:
    r"""A volume of low loss that connects modes: each spans a simplex with the shared connectors.

    Connectors are added one by one, like vertices in `spro`, each to all simplexes; the loss is
    that of the whole complex, uniform by volume. One connector of two modes is a chain with one
    control point.

    Args:
        modes: two or more, (P,) each; `ll.align` lowers the barriers between them.
        connectors: how many in the end.
        strength: λ* as in `spro`; 0.1 in the paper for complexes. Others: see `spro`; `rise` is
            counted from the modes' highest loss.

    Raises:
        ConfigError: fewer than two modes, or equal ones; no connector; a checkpoint of other
            settings. Others: see `fit`.

    >>> import torch
    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> data = [(torch.eye(3), torch.zeros(3, 1))]
    >>> surface = LossSurface(nn.Linear(3, 1, bias=False), Regression(noise_variance=1.0), data)
    >>> modes = 0.1 * torch.eye(3)[:2]
    >>> volume = connect_modes(surface, modes, connectors=1, epochs=50, log_volume=1e-3)
    >>> volume.cells, torch.equal(volume.anchors[:2], modes)
    (((0, 2), (1, 2)), True)
    """
    connectors = checks.whole("connectors", connectors, least=1)
    start = SimplicialComplex.connecting(modes)
    growth, train = growth_options(epochs, strength, options)
    return SimplexGrowth(surface, start, "connectors", growth, train).grow_to(connectors)
