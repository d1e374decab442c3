"""What users' models do that a pure function of the weights must survive."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from tests.models import generator


def rows(n=12, width=4, classes=3):
    x = torch.randn(n, width, generator=generator(1))
    return [(x, torch.randint(classes, (n,), generator=generator(2)))]


def test_a_forward_that_writes_to_its_parameters_does_not_write_to_w():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 4, max_norm=1.0), nn.Flatten(), nn.Linear(8, 3))
    data = [(torch.randint(6, (5, 2)), torch.tensor([0, 1, 2, 0, 1]))]
    surface = ll.LossSurface(model, ll.Classification(), data)
    w = 3 * torch.randn(surface.layout.size)
    before = w.clone()
    surface(w)
    ll.predict(surface, ll.Ensemble([w, w]))
    surface.value_and_grad(w, data[0])
    assert torch.equal(w, before)


def test_sync_batchnorm_is_batchnorm_on_one_process():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    sync = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
    data = rows()
    a = ll.LossSurface(plain, ll.Classification(), data)
    b = ll.LossSurface(sync, ll.Classification(), data)
    w = torch.randn(a.layout.size)
    assert float(a(w)) == pytest.approx(float(b(w)))
    pairs = zip(a.value_and_grad(w, data[0]), b.value_and_grad(w, data[0]), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_threads_take_turns_on_one_surface():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    surface = ll.LossSurface(model, ll.Classification(), rows())
    points = torch.randn(40, surface.layout.size)
    expected = [float(surface(w)) for w in points]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda w: float(surface(w)), points)) == expected


class Graphs(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 3), nn.BatchNorm1d(3)

    def forward(self, x, edges):
        out = self.norm(self.linear(x))
        return out.index_add(0, edges[0], out[edges[1]])


def test_rows_that_hang_together_are_not_cut_for_statistics():
    torch.manual_seed(0)
    edges = torch.randint(40, (2, 90))
    data = [{"x": torch.randn(40, 5), "edges": edges, "labels": torch.randint(3, (40,))}]
    surface = ll.LossSurface(Graphs(), ll.Classification(), data, bn_rows=10)
    assert torch.isfinite(surface(surface.layout.flatten(Graphs())))


def test_statistics_of_a_shuffled_loader_are_always_of_the_same_rows():
    x, y = torch.randn(200, 4), torch.randint(3, (200,))
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    values = set()
    for seed in range(3):
        torch.manual_seed(seed)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(x, y), batch_size=20, shuffle=True
        )
        surface = ll.LossSurface(model, ll.Classification(), loader, bn_rows=40)
        before = torch.get_rng_state()
        found = surface.refresh(surface.layout.flatten(model))
        assert torch.equal(torch.get_rng_state(), before)
        values.add(float(found["1.running_mean"].sum()))
    assert len(values) == 1


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
    data = rows(width=3)
    surface = ll.LossSurface(Tied(), ll.Classification(), data, where="head")
    w = torch.randn(9)
    x = data[0][0]
    expected = nn.functional.cross_entropy(x @ w.view(3, 3).T @ w.view(3, 3).T, data[0][1])
    assert float(surface(w)) == pytest.approx(float(expected))
    # what a checkpoint holds beside w never takes its place
    point = ll.Point(w, {"body.weight": torch.zeros(3, 3)})
    assert float(surface(point)) == pytest.approx(float(expected))


def test_one_hot_targets_are_not_taken_for_independent_labels():
    data = [(torch.randn(6, 4), torch.eye(3).repeat(2, 1))]
    surface = ll.LossSurface(nn.Linear(4, 3), ll.Classification(), data)
    with pytest.raises(ll.DataError, match="one-hot"):
        surface(torch.zeros(15))
    said = ll.LossSurface(nn.Linear(4, 3), ll.Classification("multilabel"), data)
    assert float(said(torch.zeros(15))) == pytest.approx(3 * np.log(2))


def test_numpy_scalars_are_numbers(tmp_path):
    post = ll.Gaussian(torch.zeros(3), torch.ones(3))
    assert torch.equal(post.draw(0, seed=np.int32(5)), post.draw(0, seed=5))
    ema = ll.EMA(ll.ParamLayout(nn.Linear(1, 1)), decay=np.float64(0.5))
    ema.update(torch.ones(2))
    ema.save(tmp_path / "ema")
    assert ll.EMA.load(tmp_path / "ema").decay == 0.5
    assert ll.Regression(noise_variance=np.float32(0.5)).noise_variance == 0.5
    with pytest.raises(ll.ConfigError):
        ll.Regression(noise_variance=True)


def test_a_layer_that_is_called_twice_has_one_answer(monkeypatch):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 4)

        def forward(self, x):
            return self.norm(self.linear(self.norm(input=x)))

    torch.manual_seed(0)
    found = []
    for running in (0.0, 5.0):  # whatever statistics the model comes with
        model = Twice()
        model.load_state_dict(
            {**model.state_dict(), "norm.running_mean": torch.full((4,), running)}
        )
        monkeypatch.setattr("lowland.core.statistics.SHARE", 0.0)
        surface = ll.LossSurface(model, ll.Classification(), rows(classes=4))
        found.append(surface.refresh(torch.linspace(-1, 1, surface.layout.size)))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-5)
