"""ParamLayout against counts and copies by hand."""

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from tests.core.random_data import one_batch
from tests.models import TiedLM, generator, mlp


def test_fingerprint_is_of_names_and_shapes() -> None:
    a, b = ll.ParamLayout(mlp()), ll.ParamLayout(mlp())
    assert a.fingerprint == b.fingerprint
    assert a.fingerprint == ll.ParamLayout(mlp().double()).fingerprint
    assert a.fingerprint != ll.ParamLayout(mlp(hidden=8)).fingerprint
    renamed_model = nn.Sequential(nn.Sequential(mlp()[0]), *mlp()[1:])
    assert a.fingerprint != ll.ParamLayout(renamed_model).fingerprint


def test_prefixes_of_wrappers_are_left_out() -> None:
    model = mlp()
    layout = ll.ParamLayout(model)
    wrapped_model = nn.DataParallel(torch.compile(model, backend="eager"))
    assert ll.ParamLayout(wrapped_model).fingerprint == layout.fingerprint
    assert torch.equal(layout.flatten(wrapped_model), layout.flatten(model))
    state = {f"module._orig_mod.{name}": t for name, t in model.state_dict().items()}
    assert torch.equal(layout.flatten(state), layout.flatten(model))
    layout.load_(wrapped_model, torch.zeros(layout.size))
    assert not layout.flatten(model).any()


def test_where_takes_a_pattern_or_a_predicate() -> None:
    model = mlp()
    assert ll.ParamLayout(model, where="bias$").names == ("0.bias", "2.bias")
    assert ll.ParamLayout(model, where=lambda n: n.startswith("2.")).names == ("2.weight", "2.bias")
    with pytest.raises(ll.LayoutError, match="widen where="):
        ll.ParamLayout(model, where="nothing")
    with pytest.raises(ll.ConfigError, match="not a regular expression"):
        ll.ParamLayout(model, where="(")


def test_tied_weights_are_counted_once() -> None:
    model = TiedLM()
    layout = ll.ParamLayout(model)
    assert layout.names == ("embed.weight", "body.weight", "body.bias")
    assert layout.size == 55 + 25 + 5
    broken = sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False))
    assert layout.size != broken
    w = layout.flatten(model)
    for lacking in ("embed.weight", "head.weight"):
        state = {n: t for n, t in model.state_dict().items() if n != lacking}
        assert torch.equal(layout.flatten(state), w)
    layout.load_(model, torch.arange(layout.size).float())
    assert model.head.weight is model.embed.weight
    assert model.head.weight.flatten()[3] == 3


def test_tied_weights_by_the_name_that_where_takes() -> None:
    model = TiedLM()
    layout = ll.ParamLayout(model, where="head")
    assert layout.names == ("head.weight",)
    surface = ll.LossSurface(
        model, ll.LanguageModeling(), [torch.randint(11, (4, 5))], where="head"
    )
    # both names have the new value
    value = surface(torch.zeros(55))
    assert float(value) == pytest.approx(np.log(11))


def test_frozen_parameters_are_no_part_of_w() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    assert ll.ParamLayout(model).names == ("2.weight", "2.bias")
    with pytest.raises(ll.LayoutError, match="requires_grad_"):
        ll.ParamLayout(model.requires_grad_(False))


def test_lazy_and_integer_parameters_are_an_error_with_a_remedy() -> None:
    with pytest.raises(ll.LayoutError, match="pass one batch through"):
        ll.ParamLayout(nn.LazyLinear(3))
    model = mlp()
    model.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ll.LayoutError, match=r"phase: expected real .*complex64"):
        ll.ParamLayout(model)


def test_weights_of_another_model_are_an_error_with_their_names() -> None:
    layout = ll.ParamLayout(mlp())
    with pytest.raises(ll.LayoutError, match=r"0.weight expected \(7, 6\), got \(9, 6\)"):
        layout.flatten(mlp(hidden=9))
    with pytest.raises(ll.LayoutError, match=r"lacks 0.weight, 0.bias.*has weight, bias instead"):
        layout.flatten(nn.Linear(2, 2))
    with pytest.raises(ll.LayoutError, match=r"lacks 2.bias"):
        layout.flatten({n: t for n, t in mlp().state_dict().items() if n != "2.bias"})
    with pytest.raises(ll.LayoutError, match="another model"):
        layout.load_(nn.Linear(2, 2), torch.zeros(layout.size))
    with pytest.raises(ll.LayoutError, match=r"swag come from another model: .*2.weight"):
        layout.require_same(ll.ParamLayout(mlp(classes=4)), what="swag")
    layout.require_same(ll.ParamLayout(mlp()))


def test_a_checkpoint_around_the_state_dict_is_an_error() -> None:
    layout = ll.ParamLayout(mlp())
    with pytest.raises(ll.LayoutError, match=r"lacks 0.weight"):
        layout.flatten({"model": mlp().state_dict(), "epoch": 3})
    # further state is ignored
    assert layout.flatten({**mlp().state_dict(), "_extra_state": {"a": 1}}).shape == (layout.size,)


@pytest.mark.parametrize(
    "w", [torch.zeros(5), torch.zeros(()), torch.zeros(73, 2), [0.0] * 73], ids=str
)
def test_wrong_vectors_are_an_error(w) -> None:
    layout = ll.ParamLayout(mlp())
    assert layout.size == 73
    with pytest.raises(ll.LayoutError, match="expected"):
        layout.unflatten(w)
    with pytest.raises(ll.LayoutError, match=r"expected (a tensor )?\(73,\)"):
        layout.load_(mlp(), w)
    with pytest.raises(ll.LayoutError, match=r"expected \(73,\), got \(2, 73\)"):
        layout.load_(mlp(), torch.zeros(2, 73))


def test_unflatten_gives_views_with_gradients() -> None:
    layout = ll.ParamLayout(mlp())
    w = torch.randn(layout.size, generator=generator())
    views = layout.unflatten(w)
    views["0.bias"].zero_()
    entry = next(e for e in layout.entries if e.name == "0.bias")
    assert not w[entry.offset : entry.offset + entry.size].any()
    stack = layout.unflatten(torch.randn(2, 3, layout.size))
    assert stack["2.weight"].shape == (2, 3, 3, 7)
    leaf = w.clone().requires_grad_()
    layout.unflatten(leaf)["2.weight"].sum().backward()
    assert leaf.grad.sum() == 21


def test_channels_last_parameters_keep_their_logical_order() -> None:
    conv = nn.Conv2d(3, 4, 3)
    layout = ll.ParamLayout(conv)
    w = layout.flatten(conv)
    conv.to(memory_format=torch.channels_last)
    assert torch.equal(layout.flatten(conv), w)
    layout.load_(conv, w.flip(0))
    assert torch.equal(layout.flatten(conv), w.flip(0))


def test_float64_where_a_parameter_has_it() -> None:
    model = mlp()
    assert ll.ParamLayout(model).dtype == torch.float32
    assert ll.ParamLayout(mlp().bfloat16()).dtype == torch.float32
    model[2].double()
    layout = ll.ParamLayout(model)
    assert layout.flatten(model).dtype == torch.float64
    assert layout.materialise(layout.flatten(model))["0.weight"].dtype == torch.float32


def test_errors_name_parameters_with_nan_or_infinity() -> None:
    layout = ll.ParamLayout(mlp())
    w = torch.zeros(layout.size)
    layout.require_finite(w)
    layout.require_finite(w + 3e38)  # the sum overflows, the weights do not
    w[-1] = torch.nan
    w[0] = torch.inf
    with pytest.raises(ll.NonFiniteError, match=r"NaN or infinite values in 0.weight, 2.bias"):
        layout.require_finite(w)
    surface = ll.LossSurface(mlp(), ll.Classification(), [(torch.ones(2, 6), torch.zeros(2).int())])
    with pytest.raises(ll.NonFiniteError, match=r"0.weight"):
        surface(w)


@pytest.fixture
def one_rank(tmp_path):
    """A process group of one process."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # torch warns about sharding
def test_sharded_parameters_are_an_error_with_a_remedy(one_rank, tmp_path):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    layout = ll.ParamLayout(net)
    w = layout.flatten(net)
    data = [(torch.ones(1, 3), torch.zeros(1, dtype=torch.int64))]
    swa, traj = ll.SWA(layout), ll.Trajectory.create(tmp_path / "run", layout)
    fully_shard(net, mesh=one_rank)
    for message in (
        lambda: ll.ParamLayout(net),
        lambda: ll.LossSurface(net, ll.Classification(), data),
        lambda: layout.flatten(net),
        lambda: layout.load_(net, w),
        lambda: swa.update(net),
        lambda: swa.update(net.state_dict()),
        lambda: traj.append(net, step=1),
    ):
        with pytest.raises(ll.LayoutError, match="full_state_dict=True"):
            message()
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    swa.update(get_model_state_dict(net, options=options))  # the remedy of the message
    assert torch.equal(swa.mean, w)
    assert swa.count == 1


def test_a_tied_name_that_where_picks_second_is_part_of_w():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(3, 3, bias=False)
            self.head = nn.Linear(3, 3, bias=False)
            self.head.weight = self.body.weight

        def forward(self, x):
            return self.head(self.body(x))

    layout = ll.ParamLayout(Tied(), where="head")
    assert layout.aliases == {"body.weight": "head.weight"}
    data = one_batch(width=3)
    surface = ll.LossSurface(Tied(), ll.Classification(), data, where="head")
    w = torch.randn(9)
    x = data[0][0]
    expected = nn.functional.cross_entropy(x @ w.view(3, 3).T @ w.view(3, 3).T, data[0][1])
    assert float(surface(w)) == pytest.approx(float(expected))
    # other tensors of a checkpoint never replace w
    point = ll.Point(w, {"body.weight": torch.zeros(3, 3)})
    assert float(surface(point)) == pytest.approx(float(expected))
