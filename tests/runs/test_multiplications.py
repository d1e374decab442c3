"""Multiplications of a forward pass against torch's own count."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lowland.core import Batch
from lowland.runs.multiplications import multiplications
from lowland.zoo import MLP, PreResNet


class Named(nn.Module):
    """Takes inputs by name, and returns a dict."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 5)

    def forward(self, *, words):
        return {"logits": self.layer(words)}


@pytest.mark.parametrize(
    ("model", "image"),
    [(MLP(inputs=20, outputs=3, widths=(50, 10)), (20,)),
     (PreResNet(classes=10), (3, 32, 32)),
     (nn.Conv2d(8, 8, 3, groups=4), (8, 6, 6)),
     (nn.TransformerEncoderLayer(16, 2, batch_first=True), (5, 16))],
    ids=["MLP", "PreResNet", "groups", "transformer"],
)  # fmt: skip
def test_they_are_half_of_torchs_operations(model, image):
    x = torch.randn(2, *image)
    count = multiplications(model.train(), Batch((x,), {}, None))
    assert model.training
    model.eval().register_forward_hook(lambda *args: None)  # without the fused path, which torch
    with torch.no_grad(), FlopCounterMode(display=False) as counter:  # does not count
        model(x)
    assert 2 * 2 * count == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_models_with_named_inputs_and_dicts_are_counted():
    assert multiplications(Named(), Batch((), {"words": torch.zeros(4, 3)}, None)) == 15
    assert not Named().layer._forward_hooks
