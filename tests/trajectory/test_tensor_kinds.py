"""What tensors of checkpoints are, against what the modules that hold them are made of."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from lowland import LayoutError, NonFiniteError
from lowland.trajectory.tensor_kinds import Kind, kinds_of, require_constant, require_whole

FILES = ("a.pt", "b.pt")


def pruned():
    net = nn.Linear(4, 3)
    prune.l1_unstructured(net, "weight", amount=0.5)
    return net


def complex_linear():
    net = nn.Linear(2, 2, bias=False, dtype=torch.complex64)
    return net


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.Linear(3, 2), {"weight": Kind.WEIGHT, "bias": Kind.WEIGHT}),
        (
            lambda: nn.BatchNorm1d(2, affine=False),
            {
                "running_mean": Kind.STATISTICS,
                "running_var": Kind.STATISTICS,
                "num_batches_tracked": Kind.INTEGER,
            },
        ),
        (
            lambda: spectral_norm(nn.Linear(3, 2, bias=False)),
            {"weight_orig": Kind.WEIGHT, "weight_u": Kind.SPECTRAL, "weight_v": Kind.SPECTRAL},
        ),
        (
            pruned,
            {"bias": Kind.WEIGHT, "weight_orig": Kind.WEIGHT, "weight_mask": Kind.MASK},
        ),
        (complex_linear, {"weight": Kind.COMPLEX}),
    ],
    ids=["linear", "batchnorm", "spectral norm", "pruning", "complex"],
)
def test_tensors_of_torchs_own_modules(make, expected):
    assert kinds_of(make().state_dict()) == expected


def test_values_tell_masks_and_names_alone_tell_nothing():
    kinds = kinds_of(
        {
            "attn.bias": torch.tensor([0.0, -math.inf]),
            "large": torch.full((9,), 3e38),  # its sum is not finite in float32
            "nan": torch.tensor([math.nan]),
            "head_mask": torch.ones(2),  # no weight is masked by it
            "memory_u": torch.ones(2),  # no weight is normalised by it
            "net.weight_fake_quant.scale": torch.ones(1),
        }
    )
    assert kinds.pop("attn.bias") is Kind.CONSTANT
    assert kinds.pop("net.weight_fake_quant.scale") is Kind.RANGES
    assert set(kinds.values()) == {Kind.WEIGHT}


@pytest.mark.parametrize("norm", [weight_norm, parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_of_two_parts_is_averaged_with_both(norm):
    kinds = kinds_of(norm(nn.Linear(3, 2)).state_dict())
    parts = [name for name in kinds if name != "bias"]
    assert len(parts) == 2
    for whole in (parts, [*parts, "bias"], ["bias"], []):
        require_whole(whole, kinds)
    for one in parts:
        with pytest.raises(LayoutError, match=r"would be averaged and .* would not"):
            require_whole([one, "bias"], kinds)


@pytest.mark.parametrize(
    ("ours", "theirs", "error", "words"),
    [
        ([0.0, -math.inf], [-math.inf, 0.0], NonFiniteError, "x holds infinite values, and others"),
        ([0.0, -math.inf], [0.0, -math.inf], None, ""),
        (torch.tensor([1, 2], dtype=torch.int8), torch.tensor([1, 3], dtype=torch.int8),
         LayoutError, r"x \(int8, \(2,\)\) differs between a.pt and b.pt"),
        (torch.tensor([1, 2], dtype=torch.uint16), torch.tensor([1, 3], dtype=torch.uint16),
         LayoutError, r"x \(uint16, \(2,\)\) differs between a.pt and b.pt"),
        (torch.tensor([1, 2], dtype=torch.uint32), torch.tensor([1, 3], dtype=torch.uint32),
         LayoutError, r"x \(uint32, \(2,\)\) differs between a.pt and b.pt"),
        (torch.tensor(7), torch.tensor(8), None, ""),  # a counter
        ([1.0, 2.0], [3.0, 4.0], None, ""),  # weights are averaged
    ],
    ids=["other infinities", "the same", "packed", "two bytes", "four bytes", "counter", "weights"],
)  # fmt: skip
def test_what_has_no_mean_is_the_same_in_all(ours, theirs, error, words):
    a, b = ({"x": torch.as_tensor(value)} for value in (ours, theirs))
    if error is None:
        require_constant(a, b, kinds_of(a), names=FILES)
    else:
        with pytest.raises(error, match=words):
            require_constant(a, b, kinds_of(a), names=FILES)


def test_masks_of_two_prunings_have_no_average():
    a = pruned().state_dict()
    b = a | {"weight_mask": 1 - a["weight_mask"]}
    with pytest.raises(LayoutError, match=r"weight_mask, a mask of pruned weights, differs"):
        require_constant(a, b, kinds_of(a), names=FILES)
