"""A fit before its first step, and a surface whose optima are known."""

import torch
from torch import nn

import lowland as ll
from lowland.train.objective import Objective
from lowland.train.options import TrainOptions
from lowland.train.shape_trainer import ShapeTrainer
from tests.models import Case


def trainer_of(shape, surface, *, seed=0, strategy="accumulate", **options):
    """The state of a fit before its first step."""
    data, objective = surface.data.loader, Objective(strategy=strategy, **options)
    return ShapeTrainer(shape, surface, data, objective, TrainOptions(seed=seed), epochs=1)


def losses_in_turn(surface, weights, batch):
    """Losses of a batch in training mode at each of w, where a layer's own running mean goes on
    from one to the next."""
    state = {}
    own = [name for name in surface.buffers if name == "0.mean"]
    for w in weights:
        yield surface.loss(w, batch, state, train=True)
        if own:
            state = surface.template.buffers_after_training(
                own, surface.layout.materialise(w), state, [batch]
            )


def bowl():
    """L(w) = |w|² / 2 + a constant: mean over four examples of squares of 2 w_i / 2."""
    model = nn.Linear(4, 1, bias=False)
    rows = [(2 * torch.eye(4), torch.zeros(4, 1))]
    return ll.LossSurface(model, ll.Regression(noise_variance=1.0), rows)


def bent(case: Case, surface: ll.LossSurface, kind=ll.Bezier, bends=2):
    """A curve between two weight vectors, with bends off the chord."""
    w = surface.layout.flatten(case.model())
    g = torch.Generator().manual_seed(5)
    other = w + 0.3 * torch.randn(w.shape, generator=g, dtype=torch.float64).to(w)
    curve = kind.between(w, other, bends=bends)
    moved = curve.anchors.clone()
    moved[1:-1] += 0.2 * torch.randn(bends, len(w), generator=g, dtype=torch.float64).to(w)
    return curve.with_anchors(moved)


def mixed_loss(curve, anchors, coords, surface, batch, decay):
    """E_t of loss and decay through an explicitly mixed model."""
    weights = [row @ anchors for row in curve.coefficients(coords).to(anchors)]
    losses = losses_in_turn(surface, weights, batch)
    each = [loss + decay / 2 * w.square().sum() for loss, w in zip(losses, weights, strict=True)]
    return sum(each) / len(coords)
