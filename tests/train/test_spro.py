"""Simplexes grown vertex by vertex: what is kept, what is not, and going on."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.geometry.volume import height
from tests.train.fitting import bowl


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def two_classes():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(120, 2, generator=g)
    y = (x[:, 0] * x[:, 1] > 0).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 2))
    rows = ll.Batches((x, y), batch_size=40, seed=0)
    surface = ll.LossSurface(model, ll.Classification(), rows)
    modes = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 2))
        ll.sgd(model, ll.Classification(), rows, epochs=60, seed=seed,
               optimizer=lambda ps: torch.optim.Adam(ps, lr=0.03))  # fmt: skip
        modes.append(surface.layout.flatten(model))
    return surface, modes


ADAM = {"optimizer": lambda ps: torch.optim.Adam(ps, lr=0.02), "strategy": "vmap"}


def test_a_simplex_of_low_loss_around_a_mode(two_classes):
    surface, (w, _) = two_classes
    simplex = ll.spro(surface, w, vertices=4, epochs=15, rise=0.2, points=50, **ADAM)
    growth = simplex.log
    assert growth.vertices.tolist() == [1, 2, 3, 4]
    assert growth.final_count == 4
    assert growth.stop_reason == ""
    assert torch.equal(simplex.anchors[0], w)
    base = float(surface(w))
    assert float(growth.loss_mean[0]) == pytest.approx(base, rel=1e-6)
    assert growth.bound == pytest.approx(base + 0.2, rel=1e-6)
    # what the log says is what the surface says
    drawn = surface.evaluate(ll.Uniform(simplex).points(50)).loss
    assert float(growth.loss_max[-1]) >= float(drawn.max()) - 1e-9
    assert float(drawn.max()) < growth.bound
    assert float(growth.log_volume[-1]) == pytest.approx(float(simplex.log_volume()))
    assert float(growth.height[-1]) == pytest.approx(height(simplex.seen()))
    assert growth.examples == 120
    # it has width: far more than where its vertices began
    start = height(ll.Simplex(simplex.anchors[:3]).grow().seen())
    assert float(growth.height[-1]) > 3 * start


def test_a_volume_of_low_loss_between_two_modes(two_classes):
    surface, modes = two_classes
    line = float(ll.barrier(surface, *modes))
    volume = ll.connect_modes(
        surface, modes, connectors=2, epochs=25, rise=0.3, points=50, strength=1e-3, **ADAM
    )
    assert line > 0.5  # there is something to go around
    assert volume.cells == ((0, 2, 3), (1, 2, 3))
    assert volume.log.unit == "connectors"
    assert volume.log.vertices.tolist() == [0, 1, 2]
    assert torch.equal(volume.anchors[:2], torch.stack(modes))
    drawn = surface.evaluate(ll.Uniform(volume).points(100, seed=5)).loss
    ends = surface.evaluate(modes).loss
    assert float(drawn.max()) < float(ends.max()) + line / 2


def test_a_vertex_of_high_loss_is_left_out_and_reported():
    surface = bowl()
    w = torch.full((4,), 0.1)
    options = {"epochs": 60, "log_volume": 0.5, "points": 10, "jitter": 1.0}
    with pytest.warns(UserWarning, match=r"vertex 2 was left out: .* more than 0\.01 above"):
        simplex = ll.spro(surface, w, vertices=4, rise=0.01, **options)
    assert len(simplex.anchors) == 1
    assert simplex.log.accepted.tolist() == [True, False]
    assert simplex.log.final_count == 1
    assert "left out" in simplex.log.stop_reason
    assert len(ll.spro(surface, w, vertices=2, rise=100.0, **options).anchors) == 2


def test_a_vertex_that_falls_back_adds_no_volume():
    # without a volume to gain, the best vertex of a bowl whose mode is off its bottom lies beyond
    # the bottom; a second one's best place is in the plane of the first two: its height falls
    surface = bowl()
    w = torch.tensor([3.0, 0.0, 0.0, 0.0])
    with pytest.warns(UserWarning, match=r"vertex 3 was left out: it stands .* adds no volume"):
        simplex = ll.spro(surface, w, vertices=4, epochs=80, log_volume=0.0, jitter=0.3)
    assert len(simplex.anchors) == 2
    assert simplex.log.accepted.tolist() == [True, True, False]


def test_bad_input():
    surface = bowl()
    w = torch.ones(4)
    with pytest.raises(ll.ConfigError, match="vertices: expected a whole number of at least 2"):
        ll.spro(surface, w, vertices=1)
    with pytest.raises(ll.ConfigError, match="connectors: expected a whole number of at least 1"):
        ll.connect_modes(surface, [w, 2 * w], connectors=0)
    with pytest.raises(ll.ConfigError, match="at least two to connect"):
        ll.connect_modes(surface, [w])
    with pytest.raises(ll.ConfigError, match="modes 0 and 1 are the same weights"):
        ll.connect_modes(surface, [w, w.clone()])
    with pytest.raises(ll.ConfigError, match="vertices: 6 vertices span no simplex in 4"):
        ll.spro(surface, w, vertices=6)
    with pytest.raises(ll.ConfigError, match="loss_max would replace a metric of the log"):
        ll.spro(surface, w, vertices=2, epochs=1, validate=lambda shape: {"loss_max": 0.0})
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.spro(surface, torch.ones(5))
    with pytest.raises(ll.ConfigError, match="rise: expected a number of at least 0"):
        ll.spro(surface, w, rise=-1)
    with pytest.raises(TypeError, match="epoch_"):
        ll.spro(surface, w, epoch_=3)
