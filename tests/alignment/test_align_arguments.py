"""Arguments of `align`: they are not changed; wrong ones raise clear errors."""

import sys

import pytest
import torch
from torch import Tensor, nn

import lowland as ll
from lowland import zoo
from lowland.alignment.trace import unit_groups
from tests.alignment.alignments import (
    difference,
    outputs,
    random_alignment,
    random_point,
    same_point,
)
from tests.models import conv_bn, generator, mlp

Sequential = nn.Sequential


def test_arguments_are_not_changed() -> None:
    model = conv_bn().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    point = random_point(model)
    permuted_point = random_alignment(model).apply(point)
    before = permuted_point.weights.clone()
    out = ll.align(model, point, permuted_point)
    assert isinstance(out, ll.Point)
    assert isinstance(ll.align(model, point, permuted_point.weights), Tensor)
    assert ll.align(model, point, ll.Point(permuted_point.weights)).buffers is None
    assert torch.equal(permuted_point.weights, before)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks


def test_double_precision_stays() -> None:
    net = mlp().double()
    w0, w1 = torch.randn(2, ll.ParamLayout(net).size, generator=generator(), dtype=torch.float64)
    assert ll.align(net, w0, w1).dtype == torch.float64


def test_weights_of_another_model_and_broken_ones_are_refused() -> None:
    net = mlp()
    w = ll.ParamLayout(net).flatten(net)
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.align(net, w, w[:-1])
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.align(net, w[:-1], w)
    broken = w.clone()
    broken[-1] = torch.nan
    with pytest.raises(ll.NonFiniteError, match=r"w1 hold NaN or infinite values in 2\.bias"):
        ll.align(net, w, broken)
    with pytest.raises(ll.NonFiniteError, match="w0"):
        ll.align(net, broken, w)
    with pytest.raises(ll.ConfigError, match="restarts: expected a whole number of at least 0"):
        ll.align(net, w, w, restarts=-1)
    norms = conv_bn()
    point = random_point(norms)
    for buffers, words in (
        ({"other": torch.zeros(3)}, r"expected 1\.running_mean, got other"),
        ({"1.running_mean": torch.zeros(3)}, "expected 4 values"),
    ):
        with pytest.raises(ll.LayoutError, match=words):
            ll.align(norms, point, ll.Point(point.weights, buffers))


class Topmost(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).topk(3, 1).values)


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (Sequential(nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6), nn.Conv2d(6, 1, 3)), (2, 2, 8, 8),
         r"1 \(GroupNorm\): align does not know native_group_norm; align follows linear"),
        (Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 3, groups=2), nn.Conv2d(6, 1, 1)),
         (2, 2, 8, 8), r"1 \(Conv2d\): align does not know convolution with groups=2"),
        (Topmost(), (2, 4), r"Topmost: align does not know topk"),
        (nn.Linear(3, 2), (2, 3), "no hidden units"),
        (mlp(), (2, 5), "inputs: found no batch that the model takes"),
    ],
    ids=["GroupNorm", "groups", "topk", "linear", "inputs"],
)  # fmt: skip
def test_unsupported_operations_raise(model: nn.Module, shape: tuple, words: str) -> None:
    w = ll.ParamLayout(model).flatten(model)
    with pytest.raises(ll.ConfigError, match=words):
        ll.align(model, w, w, inputs=torch.zeros(shape))


def test_inputs_are_required_where_no_layer_determines_them() -> None:
    class Power(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(5, 2))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.up).relu() @ self.down

    model = Power()
    point = random_point(model)
    with pytest.raises(ll.ConfigError, match="pass inputs="):
        ll.align(model, point, point)
    permuted_point = random_alignment(model, torch.zeros(2, 3)).apply(point)
    for inputs in (torch.zeros(2, 3), (torch.zeros(2, 3),), {"x": torch.zeros(2, 3)}):
        assert same_point(ll.align(model, point, permuted_point, inputs=inputs), point)


class Auxiliary(nn.Module):
    """A head that evaluation does without: nothing is seen of its units."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 4)
        self.last, self.other = nn.Linear(4, 2), Sequential(nn.Linear(4, 9), nn.Linear(9, 2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.first(x).relu()).relu()
        return self.other(h) if self.training else self.last(h)


def test_parameters_that_evaluation_does_without_stay() -> None:
    net = Auxiliary()
    point, order = random_point(net), random_alignment(net)
    assert order.groups.sizes == (5, 4)  # not the 9 of the other head
    permuted_point = order.apply(point)
    batch = torch.randn(5, 3, generator=generator())
    assert difference(*(outputs(net, p, (batch,), {}) for p in (point, permuted_point))) < 1e-5
    before, after = (order.layout.unflatten(p.weights) for p in (point, permuted_point))
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("other"))


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "where"])
def test_units_of_frozen_parameters_stay(frozen: bool) -> None:
    net = zoo.MLP(inputs=3, outputs=2, widths=(5, 4))
    where = None if frozen else r"^(1\.bias|[35])"
    net[1].weight.requires_grad_(not frozen)
    layout = ll.ParamLayout(net, where=where)
    assert unit_groups(net, layout).sizes == (4,)
    w0, w1 = torch.randn(2, layout.size, generator=generator())
    permuted_point = layout.unflatten(ll.align(net, w0, w1, where=where))
    assert torch.equal(permuted_point["1.bias"], layout.unflatten(w1)["1.bias"])


def test_the_error_without_scipy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    net = mlp()
    w = ll.ParamLayout(net).flatten(net)
    with pytest.raises(ll.LowlandError, match=r'pip install "lowland\[cli\]"'):
        ll.align(net, w, w)
