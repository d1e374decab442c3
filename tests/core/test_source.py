"""The model that a private copy was made of."""

import gc
import pickle

import pytest
import torch
from torch import nn

from lowland.core.buffers import buffers_of
from lowland.core.source import SourceModel


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("calls", torch.tensor(0))


def test_changes_of_buffers_are_found_but_for_counters_and_derived_ones() -> None:
    model = Scaled()
    copies = buffers_of(model)
    source = SourceModel(model, derived=["mean"])
    assert source.changed(copies) == []
    model.calls += 1
    model.mean += 1
    assert source.changed(copies) == []
    model.scale += 1
    assert source.changed(copies) == ["scale"]
    with pytest.warns(UserWarning, match="scale of the model changed"):
        source.warn_if_changed(copies)
    model.scale -= 1
    assert source.changed(copies) == []
    model.register_buffer("scale", torch.zeros(2))  # another tensor of the same name
    assert source.changed(copies) == ["scale"]


def test_a_model_that_is_gone_has_no_changes() -> None:
    model = Scaled()
    copies = buffers_of(model)
    source = SourceModel(model, derived=[])
    model.scale += 1
    assert pickle.loads(pickle.dumps(source)).changed(copies) == []
    del model
    gc.collect()
    assert source.changed(copies) == []
