"""Replayable loaders: which are accepted, which are an error, and the messages."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import lowland as ll
from lowland.core.data import ReplayableLoader, concatenate, example_hashes, first_examples
from lowland.core.seeds import fork_torch_rng
from tests.models import generator, mlp


def dataset(n: int = 100) -> TensorDataset:
    g = generator()
    return TensorDataset(torch.randn(n, 6, generator=g), torch.randint(3, (n,), generator=g))


def replayable(loader, **options) -> ReplayableLoader:
    return ReplayableLoader(loader, ll.Classification(), device="cpu", **options)


class Augmented(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 1e-3 * torch.randn_like(x), y


class Endless(IterableDataset):
    def __iter__(self):
        g = generator()
        while True:
            yield torch.randn(6, generator=g), int(torch.randint(3, (), generator=g))


class Once(IterableDataset):
    def __iter__(self):
        return iter(dataset(20))


def test_examples_in_another_order_are_accepted() -> None:
    data = replayable(DataLoader(dataset(), batch_size=16, shuffle=True))
    for _ in range(20):
        inputs = torch.cat([x for (x,), _, _ in data])
        assert len(inputs) == data.num_examples == data.items == 100


def test_examples_in_other_batches_are_accepted() -> None:
    class Ragged:
        size = 7

        def __iter__(self):
            self.size += 1
            return iter(DataLoader(dataset(), batch_size=self.size))

    data = replayable(Ragged())
    for _ in range(10):
        assert (
            sum(len(batch.target) for batch in data.batches(ordered=True))
            == data.num_examples
            == 100
        )


def test_another_order_is_an_error_where_order_matters() -> None:
    data = replayable(DataLoader(dataset(), batch_size=16, shuffle=True))
    list(data.batches(ordered=True))
    with pytest.raises(ll.DataError, match="pass shuffle=False"):
        list(data.batches(ordered=True))


def test_random_augmentation_is_an_error_on_the_second_pass() -> None:
    data = replayable(DataLoader(Augmented(*dataset().tensors), batch_size=16))
    list(data)
    with pytest.raises(ll.DataError, match="turn random augmentation and drop_last off"):
        list(data)
    surface = ll.LossSurface(
        mlp(), ll.Classification(), DataLoader(Augmented(*dataset().tensors), batch_size=16)
    )
    w = torch.zeros(surface.layout.size)
    surface(w)
    with pytest.raises(ll.DataError, match="the loader changed"):
        surface(w)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: x[3].add_(1e-6),
        lambda x, y: y[3].add_(1),
        lambda x, y: x[[0, 1]].copy_(x[[1, 0]]) if False else x.__setitem__(0, x[1].clone()),
        lambda x, y: x.__setitem__(slice(0, 2), x[[1, 0]].clone()),  # labels stay: other examples
        lambda x, y: x.__setitem__(0, x[0].flip(0)),
        lambda x, y: x[0, 0].neg_(),
    ],
    ids=["value", "label", "copy", "swapped labels", "flipped", "sign"],
)
def test_changed_examples_are_an_error(change) -> None:
    x, y = (t.clone() for t in dataset(10).tensors)
    y[:2] = torch.tensor([0, 1])
    data = replayable([(x[:6], y[:6]), (x[6:], y[6:])])
    list(data)
    list(data)
    change(x, y)
    with pytest.raises(
        ll.DataError, match=r"changed: 10 examples now, 10 before, and not the same"
    ):
        list(data)


def test_a_sum_of_values_misses_changes() -> None:
    """Broken twin: a sum of values does not change with swapped labels or a flipped example."""
    x, y = dataset(10).tensors
    swapped_inputs = (x[[1, 0, *range(2, 10)]], y)
    assert torch.isclose(x.sum() + y.sum(), swapped_inputs[0].sum() + y.sum())
    assert (
        example_hashes((x, y), 10).sum() != example_hashes(swapped_inputs, 10).sum() or y[0] == y[1]
    )
    assert example_hashes((x.flip(1), y), 10).sum() != example_hashes((x, y), 10).sum()


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.uint8, torch.int16, torch.bfloat16, torch.float64, torch.complex64],
    ids=str,
)
def test_examples_of_every_dtype_have_different_hashes(dtype) -> None:
    x = torch.arange(48).reshape(24, 2)
    x = torch.stack([x // 2**i % 2 for i in range(6)], -1) if dtype == torch.bool else x
    hashes = example_hashes(x.to(dtype), 24)
    assert len(set(hashes.tolist())) == 24


def test_missing_examples_are_an_error() -> None:
    class Shrinking:
        n = 100

        def __iter__(self):
            self.n -= 1
            return iter(DataLoader(dataset(self.n), batch_size=32))

    data = replayable(Shrinking())
    list(data)
    with pytest.raises(ll.DataError, match="98 examples now, 99 before"):
        list(data)


def test_an_exhausted_iterator_is_an_error() -> None:
    data = replayable(iter(DataLoader(dataset(), batch_size=32)))
    assert sum(len(x) for (x,), _, _ in data) == 100
    with pytest.raises(ll.DataError, match="empty on the second pass: give a loader"):
        list(data)


@pytest.mark.parametrize(
    "loader", [[], DataLoader(TensorDataset(torch.zeros(0, 3)))], ids=["list", "loader"]
)
def test_an_empty_loader_is_an_error(loader) -> None:
    with pytest.raises(ll.DataError, match="it gave no examples; check its data set"):
        list(replayable(loader))


def test_values_that_are_no_loader_are_an_error() -> None:
    for loader in (torch.zeros(3, 2), dataset(), 3):
        with pytest.raises(ll.DataError, match="wrap data in a DataLoader"):
            replayable(loader)
    with pytest.raises(ll.DataError, match="a list is taken for batches"):
        list(replayable([("text", 3)]))
    with pytest.raises(ll.DataError, match="every label is ignored"):
        list(replayable([(torch.zeros(2, 3), torch.full((2,), -100))]))


def test_an_endless_loader_is_read_up_to_count() -> None:
    data = replayable(DataLoader(Endless(), batch_size=8), count=20)
    for _ in range(2):
        assert [len(x) for (x,), _, _ in data] == [8, 8, 4]
    assert data.num_examples == 20
    surface = ll.LossSurface(
        mlp(), ll.Classification(), DataLoader(Endless(), batch_size=8), count=20
    )
    assert float(surface(torch.zeros(surface.layout.size))) == pytest.approx(1.0986, abs=1e-4)
    with pytest.raises(ll.ConfigError, match="count: expected a whole number of at least 1"):
        replayable([], count=0)


def test_iterable_data_sets() -> None:
    data = replayable(DataLoader(Once(), batch_size=8))
    assert [len(x) for (x,), _, _ in data] == [8, 8, 4]
    assert [len(x) for (x,), _, _ in data] == [8, 8, 4]


def test_an_empty_batch_in_the_middle_ends_nothing() -> None:
    x, y = dataset(10).tensors
    data = replayable([(x[:4], y[:4]), (x[:0], y[:0]), (x[4:], y[4:])])
    assert [len(x) for (x,), _, _ in data] == [4, 6]


def test_dicts_and_tensors_without_a_batch_axis() -> None:
    shared = torch.arange(5.0)
    batches = [
        {"x": torch.randn(n, 5), "grid": shared, "scale": torch.tensor(2.0), "y": torch.zeros(n)}
        for n in (4, 3)
    ]
    data = ReplayableLoader(batches, ll.Regression(1.0), device="cpu", count=6)
    out = list(data)
    assert [len(batch.kwargs["x"]) for batch in out] == [4, 2]
    assert out[1].target.shape == (2,)
    assert torch.equal(out[1].kwargs["grid"], shared)
    assert out[1].kwargs["scale"] == 2
    assert concatenate(batches) is None  # tensors without a batch axis
    concatenated = concatenate([{"x": b["x"], "y": b["y"]} for b in batches])
    assert concatenated["x"].shape == (7, 5)
    assert first_examples(batches[0], 2)["grid"].shape == (5,)


def test_resident_examples_are_read_once(monkeypatch) -> None:
    class Counted:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter(DataLoader(dataset(), batch_size=32))

    loader = Counted()
    data = replayable(loader).cached()
    for _ in range(3):
        assert len(list(data)) == 4
    assert loader.passes == 1
    monkeypatch.setattr("lowland.core.data.free_memory", lambda device: 0)
    assert replayable(loader).resident() is None


def test_channels_last_changes_no_hash() -> None:
    x = torch.randn(4, 3, 5, 5)
    (batch,) = replayable([(x, torch.zeros(4).long())], channels_last=True)
    assert batch.args[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.args[0], x)
    assert torch.equal(example_hashes(batch, 4), example_hashes((x, batch.target), 4))


class Graph:
    """A batch of a custom class, as in graph libraries."""

    def __init__(self, nodes, labels):
        self.nodes, self.labels, self.device = nodes, labels, None

    def to(self, device):
        copy = Graph(self.nodes.to(device), self.labels)
        copy.device = device
        return copy


class Pool(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, graph):
        assert graph.device is not None, "the object was not moved"
        return self.linear(graph.nodes).view(2, 4, 2).mean(1)


def test_batches_may_be_objects_with_a_custom_unpack():
    task = ll.Classification(unpack=lambda graph: ((graph,), {}, graph.labels))
    batches = [Graph(torch.randn(8, 3), torch.tensor([0, 1])) for _ in range(3)]
    model = Pool()
    surface = ll.LossSurface(model, task, batches)
    w = surface.layout.flatten(model)
    outputs = torch.cat([model(b.to(torch.device("cpu"))) for b in batches])
    expected = torch.nn.functional.cross_entropy(outputs, torch.cat([b.labels for b in batches]))
    assert float(surface(w)) == pytest.approx(expected.item(), rel=1e-6)
    assert surface.data.num_examples == 6
    value, gradient = surface.value_and_grad(w, batches[0])
    assert gradient.shape == w.shape
    assert torch.isfinite(value)


def test_generators_of_other_devices_are_unchanged(monkeypatch):
    """`torch.manual_seed` seeds every GPU, and a fork on the CPU restores none."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda *_: pytest.fail("a GPU was seeded"))
    before = torch.get_rng_state()
    with fork_torch_rng(3, torch.device("cpu")):
        noise = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(noise, torch.rand(3, generator=torch.Generator().manual_seed(3)))
    with monkeypatch.context() as patch:  # the broken twin
        patch.setattr(torch.cuda, "manual_seed_all", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            torch.manual_seed(3)


def test_reading_shuffled_examples_for_batchnorm_seeds_no_gpu(monkeypatch):
    """Otherwise each refresh on a GPU would restart the dropout noise of a training run."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda *_: pytest.fail("a GPU was seeded"))
    data = TensorDataset(torch.randn(12, 3), torch.zeros(12, dtype=torch.long))
    loader = DataLoader(data, batch_size=4, shuffle=True)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    surface = ll.LossSurface(net, ll.Classification(), loader, bn_rows=8)
    w = surface.layout.flatten(net)
    first = surface.refresh(w)
    again = ll.LossSurface(net, ll.Classification(), loader, bn_rows=8).refresh(w)
    assert all(torch.equal(first[name], again[name]) for name in first)  # the same examples


def test_examples_that_do_not_fit_in_memory_are_read_once(monkeypatch):
    passes = []

    class Counted:
        def __iter__(self):
            passes.append(1)
            yield torch.zeros(4, 2), torch.zeros(4, 1)

    loader = ReplayableLoader(Counted(), ll.Regression(noise_variance=1.0), device="cpu")
    monkeypatch.setattr("lowland.core.data.free_memory", lambda device: 0)
    cached = loader.cached()
    assert cached.resident() is None
    assert (len(passes), cached.num_examples, loader.num_examples) == (1, 4, 4)
    assert len(list(cached)) == 1  # one more pass
    assert len(passes) == 2
