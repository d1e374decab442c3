"""A fit before its first step, and a surface whose optima are known."""

import torch
from torch import nn

import lowland as ll
from lowland.train.along import Along
from lowland.train.objective import Objective
from lowland.train.options import TrainOptions


def run_of(shape, surface, *, seed=0, strategy="accumulate", **options):
    """The state of a fit before its first step."""
    data, objective = surface.data.loader, Objective(strategy=strategy, **options)
    return Along(shape, surface, data, objective, TrainOptions(seed=seed), epochs=1)


def losses_in_turn(surface, weights, batch):
    """Losses of a batch in training mode at each of w, where a layer's own running mean goes on
    from one to the next."""
    state = {}
    own = [name for name in surface.buffers if name == "0.mean"]
    for w in weights:
        yield surface.loss(w, batch, state, train=True)
        if own:
            state = surface.template.updated(own, surface.layout.materialise(w), state, [batch])


def bowl():
    """L(w) = |w|² / 2 + a constant: mean over four rows of squares of 2 w_i / 2."""
    model = nn.Linear(4, 1, bias=False)
    rows = [(2 * torch.eye(4), torch.zeros(4, 1))]
    return ll.LossSurface(model, ll.Regression(noise_variance=1.0), rows)
