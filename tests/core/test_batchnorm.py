"""BatchNorm statistics against a layer-by-layer computation in float64 over all examples."""

import copy

import pytest
import torch
from torch import Tensor, nn

import lowland as ll
from lowland.core import batchnorm
from tests.core.random_data import one_batch
from tests.models import conv_bn, generator

SIZES = ([64, 64, 2], [10] * 13, [128, 1, 1])


def sorted_examples(n: int = 130) -> tuple[Tensor, Tensor]:
    """Images in ascending order of brightness, like a data set sorted by class."""
    g = generator()
    x = torch.randn(n, 2, 5, 5, generator=g) + torch.linspace(-3, 3, n)[:, None, None, None]
    return x, torch.randint(3, (n,), generator=g)


def batches_of(sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    x, y = sorted_examples()
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def surface_of(model: nn.Module, sizes: list[int], **options) -> ll.LossSurface:
    return ll.LossSurface(model, ll.Classification(), batches_of(sizes), **options)


def offline(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Layer by layer in float64 over all examples, without dropout."""
    x, out = x.double(), {}
    for name, layer in copy.deepcopy(model).double().eval().named_children():
        if isinstance(layer, nn.BatchNorm2d):
            over = (0, 2, 3)
            mean, var = x.mean(over), x.var(over, unbiased=False)
            n = x.numel() // x.shape[1]
            out[f"{name}.running_mean"], out[f"{name}.running_var"] = mean, var * n / (n - 1)
            x = (x - mean[:, None, None]) / (var[:, None, None] + layer.eps).sqrt()
            x = x * layer.weight[:, None, None] + layer.bias[:, None, None]
        else:
            x = layer(x)
    return out


def torch_update_bn(model: nn.Module, batches, *, whole_model: bool) -> dict[str, Tensor]:
    """Broken twin: the mean of batch variances with equal weights (torch's `update_bn`)."""
    model = copy.deepcopy(model)
    model.train(whole_model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.momentum = None
            module.reset_running_stats()
    for x, _ in batches:
        model(x)
    return {n: b for n, b in model.named_buffers() if "tracked" not in n}


def close(statistics: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-4) -> bool:
    assert statistics.keys() == expected.keys()
    return all(
        torch.allclose(statistics[n].double(), expected[n].double(), rtol=rtol, atol=rtol)
        for n in expected
    )


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return conv_bn()


@pytest.fixture
def small_memory(monkeypatch) -> None:
    """All examples do not fit in one batch: exact statistics take one pass per depth."""
    monkeypatch.setattr("lowland.core.statistics.SHARE", 0.0)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_exact_statistics_are_independent_of_the_batches(model, sizes) -> None:
    surface = surface_of(model, sizes)
    statistics = surface.refresh(surface.layout.flatten(model))
    assert close(statistics, offline(model, sorted_examples()[0]), rtol=1e-5)
    # broken twin: torch's statistics for these batches
    assert not close(
        torch_update_bn(model, batches_of(sizes), whole_model=True), statistics, rtol=1e-2
    )


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_one_pass_per_depth_gives_equal_statistics(model, sizes, small_memory) -> None:
    surface = surface_of(model, sizes)
    assert surface.statistics.resident() is None
    statistics = surface.refresh(surface.layout.flatten(model))
    assert close(statistics, offline(model, sorted_examples()[0]), rtol=1e-5)


def test_both_methods_agree_for_few_examples(monkeypatch) -> None:
    # with 9 values per channel, n - 1 instead of n would change the second layer
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 4), nn.BatchNorm1d(4)
    )
    x, y = torch.randn(9, 3, generator=generator()), torch.zeros(9, dtype=torch.int64)
    data = [(x[:5], y[:5]), (x[5:], y[5:])]
    task, w = ll.Classification(), ll.ParamLayout(model).flatten(model)
    resident = ll.LossSurface(model, task, data).refresh(w)
    monkeypatch.setattr("lowland.core.statistics.SHARE", 0.0)
    assert close(ll.LossSurface(model, task, data).refresh(w), resident, rtol=1e-5)


def test_exact_statistics_equal_a_training_pass_over_all_examples(model) -> None:
    """An oracle without a formula: torch in training mode, momentum 1, one batch."""
    x, _ = sorted_examples()
    torch_statistics = torch_update_bn(model, [(x, None)], whole_model=False)
    surface = surface_of(model, [64, 66])
    assert close(surface.refresh(surface.layout.flatten(model)), torch_statistics, rtol=1e-5)


@pytest.mark.parametrize("sizes", SIZES[:2], ids=str)
def test_batch_statistics_equal_a_pooled_training_pass(model, sizes) -> None:
    inputs: dict[str, list[Tensor]] = {"1": [], "4": []}
    twin = copy.deepcopy(model).train()
    for name, arrays in inputs.items():
        twin.get_submodule(name).register_forward_pre_hook(
            lambda m, args, arrays=arrays: arrays.append(args[0].double())
        )
    with torch.no_grad():
        for x, _ in batches_of(sizes):
            twin(x)
    expected = {}
    for name, arrays in inputs.items():
        values = torch.cat(arrays).transpose(0, 1).flatten(1)
        expected[f"{name}.running_mean"] = values.mean(1)
        expected[f"{name}.running_var"] = values.var(1)
    surface = surface_of(model, sizes)
    w = surface.layout.flatten(model)
    statistics = surface.refresh(w, method="batch")
    assert close(statistics, expected, rtol=1e-5)
    # statistics of the first layer do not depend on the batches, those of the second do
    exact = surface.refresh(w)
    assert torch.allclose(statistics["1.running_var"], exact["1.running_var"], rtol=1e-4)
    assert not torch.allclose(statistics["4.running_var"], exact["4.running_var"], rtol=1e-2)
    # broken twin: the mean of batch variances, with equal weights
    assert not close(
        torch_update_bn(model, batches_of(sizes), whole_model=True), expected, rtol=0.1
    )


def test_batches_are_weighted_by_their_examples() -> None:
    """Batches of 2 and of 64 examples, sorted: there is variance between batches too."""
    parts = [torch.zeros(64, 1), torch.full((2, 1), 10.0)]
    mean, variance = batchnorm.pooled([batchnorm.moments(p) for p in parts])
    together = torch.cat(parts).double()
    torch.testing.assert_close(mean, together.mean(0))
    torch.testing.assert_close(variance, together.var(0))
    alike = torch.stack([p.mean() for p in parts]).mean()
    within = torch.stack([p.var() for p in parts]).mean()
    assert float(alike) == 5.0  # broken twins: against 0.3 and 3.0
    assert float(within) == 0.0


def test_moments_of_large_means_do_not_cancel() -> None:
    x = 1e4 + torch.randn(100, 3, 2, generator=generator())
    _, variance = batchnorm.pooled([batchnorm.moments(p) for p in x.split(30)])
    torch.testing.assert_close(
        variance, x.double().transpose(0, 1).flatten(1).var(1), rtol=1e-3, atol=0
    )
    naive = (x**2).mean((0, 2)) - x.mean((0, 2)) ** 2
    assert not torch.allclose(naive.double(), variance, rtol=0.1)  # broken twin


@pytest.mark.parametrize("method", ["exact", "batch"])
def test_dropout_is_off(method) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), *conv_bn())
    surface = ll.LossSurface(model, ll.Classification(), batches_of([130]))
    w = surface.layout.flatten(model)
    statistics = surface.refresh(w, method=method)
    assert close(statistics, offline(model, sorted_examples()[0]), rtol=1e-5)
    assert close(surface.refresh(w, method=method), statistics, rtol=0)
    on = torch_update_bn(model, batches_of([130]), whole_model=True)
    assert not close(on, statistics, rtol=1e-2)  # broken twin


def test_variance_is_unbiased_as_in_torch() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1, affine=False), nn.Linear(1, 2))
    x = torch.tensor([[0.0], [1.0], [5.0]])
    surface = ll.LossSurface(model, ll.Classification(), [(x, torch.zeros(3, dtype=torch.int64))])
    statistics = surface.refresh(torch.zeros(4))
    torch.testing.assert_close(statistics["0.running_var"], x.var(0))
    assert not torch.allclose(statistics["0.running_var"], x.var(0, unbiased=False))


def test_statistics_of_a_frozen_layer_are_unchanged() -> None:
    torch.manual_seed(0)
    model = conv_bn().train()
    model[1].eval()
    surface = surface_of(model, [130])
    w = surface.layout.flatten(model)
    for method in ("exact", "batch"):
        assert set(surface.refresh(w, method=method)) == {"4.running_mean", "4.running_var"}
    # in a training step it normalises by its frozen statistics as well
    x, y = sorted_examples()
    value, _ = surface.value_and_grad(w, (x, y))
    torch.testing.assert_close(value, nn.functional.cross_entropy(copy.deepcopy(model)(x), y))
    unfrozen = copy.deepcopy(model)
    unfrozen[1].train()
    assert not torch.allclose(value, nn.functional.cross_entropy(unfrozen(x), y), rtol=1e-3)


def test_a_model_in_evaluation_mode_has_no_frozen_layers(model) -> None:
    surface = surface_of(model.eval(), [130])
    assert len(surface.refresh(surface.layout.flatten(model))) == 4


def test_bn_rows_count_and_bn_loader(model) -> None:
    x, _ = sorted_examples()
    w = ll.ParamLayout(model).flatten(model)
    first = surface_of(model, [50, 50, 30], bn_rows=60).refresh(w)
    assert close(first, offline(model, x[:60]), rtol=1e-5)
    limited = surface_of(model, [50, 50, 30], count=70).refresh(w)
    assert close(limited, offline(model, x[:70]), rtol=1e-5)
    other = surface_of(model, [130], bn_loader=batches_of([50, 50, 30])[1:]).refresh(w)
    assert close(other, offline(model, x[50:]), rtol=1e-5)


def test_shuffled_loaders_give_one_function(model) -> None:
    x, y = sorted_examples()
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)
    surface = ll.LossSurface(model, ll.Classification(), loader, bn_rows=40)
    w = surface.layout.flatten(model)
    torch.testing.assert_close(surface(w), surface(w), rtol=1e-6, atol=0)


def test_refresh_is_the_default_of_the_surface(model) -> None:
    surface = surface_of(model, [50, 80])
    w = surface.layout.flatten(model)
    buffers = surface.refresh(w)
    twin = copy.deepcopy(model).eval()
    twin.load_state_dict({**twin.state_dict(), **buffers})
    x, y = sorted_examples()
    expected = nn.functional.cross_entropy(twin(x), y)
    torch.testing.assert_close(surface(w).float(), expected)
    torch.testing.assert_close(surface(ll.Point(w, buffers), batchnorm="frozen"), surface(w))
    assert not torch.allclose(surface(w, batchnorm="frozen").float(), expected, rtol=1e-2)


def test_a_points_buffers_are_used_wherever_it_goes(model) -> None:
    surface = surface_of(model, [50, 80])
    w = surface.layout.flatten(model)
    point = ll.Point(w, surface.refresh(w))
    value, gradient = surface.value_and_grad(point, batchnorm="frozen")
    torch.testing.assert_close(value, surface(point, batchnorm="frozen"))
    assert not torch.allclose(gradient, surface.value_and_grad(w, batchnorm="frozen")[1])
    with pytest.raises(ll.LayoutError, match=r"got 9.running_mean"):
        surface(ll.Point(w, {"9.running_mean": torch.zeros(3)}))


def test_errors_contain_a_remedy(model, small_memory) -> None:
    surface = surface_of(model, [64, 66])
    w = surface.layout.flatten(model)
    with pytest.raises(ll.DataError, match="lower bn_rows"):
        surface.value_and_grad(w)
    with pytest.raises(ll.ConfigError, match="method: expected one of exact, batch"):
        surface.refresh(w, method="running")
    with pytest.raises(ll.ConfigError, match="batchnorm: expected one of refresh, frozen"):
        surface(w, batchnorm="batch")
    with pytest.raises(ll.DataError, match="at least two examples"):
        ll.LossSurface(model, ll.Classification(), batches_of([1, 129])[:1]).refresh(w)
    with pytest.raises(ll.ConfigError, match="bn_rows: expected a whole number of at least 2"):
        surface_of(model, [130], bn_rows=1)
    with pytest.raises(ll.DataError, match="iterator"):
        ll.LossSurface(model, ll.Classification(), iter(batches_of([130])))(w)


def test_a_batch_of_one_example() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    x, y = torch.randn(5, 2), torch.zeros(5, dtype=torch.int64)
    surface = ll.LossSurface(model, ll.Classification(), [(x[:4], y[:4]), (x[4:], y[4:])])
    w = surface.layout.flatten(model)
    torch.testing.assert_close(surface.refresh(w)["0.running_var"], x.var(0))
    with pytest.raises(ll.DataError, match="another batch size"):
        surface.refresh(w, method="batch")


def test_batches_of_different_shapes_take_one_pass_per_depth(model) -> None:
    """Images of two sizes do not form one batch; the statistics are those of all pixels."""
    net = nn.Sequential(*model[:6], nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    x, y = sorted_examples()
    data = [(x[:60], y[:60]), (x[60:, :, :4, :4], y[60:])]
    surface = ll.LossSurface(net, ll.Classification(), data)
    w = surface.layout.flatten(net)
    statistics = surface.refresh(w)
    pixels = torch.cat(
        [net[0](part).double().transpose(0, 1).flatten(1) for part, _ in data], 1
    ).detach()
    torch.testing.assert_close(
        statistics["1.running_mean"].double(), pixels.mean(1), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ll.DataError, match="of different shapes"):
        surface.value_and_grad(w)


@pytest.mark.parametrize("shape", [(7, 3), (7, 3, 5), (7, 3, 4, 5)])
@pytest.mark.parametrize("piece", [1, 70, 1 << 19])
def test_moments_do_not_depend_on_the_pieces(shape, piece, monkeypatch):
    monkeypatch.setattr(batchnorm, "_CHUNK", piece)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 100
    over = [d for d in range(x.ndim) if d != 1]
    for laid in (x, x.to(memory_format=torch.channels_last) if x.ndim == 4 else x):
        count, mean, variance = batchnorm.moments(laid)
        assert count == x.numel() // 3
        torch.testing.assert_close(mean.double(), x.double().mean(over), rtol=1e-6, atol=0)
        exact = x.double().var(over, correction=0)
        torch.testing.assert_close(variance.double(), exact, rtol=1e-5, atol=0)
        # a broken twin: E[x^2] - E[x]^2 in float32 cancels
        assert not torch.allclose((x**2).mean(over) - x.mean(over) ** 2, exact.float(), rtol=1e-5)


def test_sync_batchnorm_is_batchnorm_on_one_process():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    sync = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
    data = one_batch()
    a = ll.LossSurface(plain, ll.Classification(), data)
    b = ll.LossSurface(sync, ll.Classification(), data)
    w = torch.randn(a.layout.size)
    assert float(a(w)) == pytest.approx(float(b(w)))
    pairs = zip(a.value_and_grad(w, data[0]), b.value_and_grad(w, data[0]), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)
