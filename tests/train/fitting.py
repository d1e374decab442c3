"""A fit before its first step, and a surface whose optima are known."""

import torch
from torch import nn

import lowland as ll
from lowland.train.along import Along


def run_of(shape, surface, **options):
    """The state of a fit before its first step."""
    plain = {
        "measure": "coords", "samples": 1, "strategy": "accumulate", "weight_decay": 0.0,
        "compile": False, "epochs": 1, "optimizer": None, "schedule": None, "collectors": (),
        "validate": None, "device": None, "autocast": None, "channels_last": False,
        "accumulate": 1, "clip": None, "seed": 0, "checkpoint": None, "checkpoint_steps": None,
    }  # fmt: skip
    return Along(shape, surface, surface.data.loader, **plain | options)


def bowl():
    """L(w) = |w|² / 2 + a constant: mean over four rows of squares of 2 w_i / 2."""
    model = nn.Linear(4, 1, bias=False)
    rows = [(2 * torch.eye(4), torch.zeros(4, 1))]
    return ll.LossSurface(model, ll.Regression(noise_variance=1.0), rows)
