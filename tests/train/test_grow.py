"""Simplexes grown vertex by vertex: what is kept, what is not, and going on."""

import math

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.geometry.volume import height
from lowland.train.grow import LEAST, paper_weight
from tests.models import CASES
from tests.train.fitting import bowl
from tests.train.resuming import Boom, Count, watched


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
        surface, modes, connectors=2, epochs=40, rise=0.3, points=50, strength=1e-3, **ADAM
    )
    assert line > 0.5  # there is something to go around
    assert volume.cells == ((0, 2, 3), (1, 2, 3))
    assert volume.log.unit == "connectors"
    assert volume.log.vertices.tolist() == [0, 1, 2]
    assert torch.equal(volume.anchors[:2], torch.stack(modes))
    drawn = surface.evaluate(ll.Uniform(volume).points(100, seed=5)).loss
    ends = surface.evaluate(modes).loss
    assert float(drawn.max()) < float(ends.max()) + line / 2


def test_a_vertex_of_high_loss_is_left_out_and_said():
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


def test_the_papers_rule_for_the_weight_of_the_volume():
    g = torch.Generator().manual_seed(0)
    w = torch.randn(10_000, generator=g)
    simplex = ll.Simplex([w, w + 0.1 * torch.randn(10_000, generator=g)]).grow()
    # all three vertices are noise: a regular triangle, whatever the fitted one is
    expected = 1e-6 / math.log(math.sqrt(3) / 4 * 2 * 10_000)
    assert paper_weight(simplex, 1e-6) == pytest.approx(expected, rel=0.01)
    near = simplex.with_anchors(w + 1e-3 * (simplex.anchors - w))
    assert paper_weight(near, 1e-6) == pytest.approx(expected, rel=0.01)
    small = simplex.with_anchors(1e-3 * simplex.anchors)  # a volume below one
    assert paper_weight(small, 1e-6) == LEAST
    assert paper_weight(simplex, 1e-10) == LEAST
    # of the same structure: two triangles that share an edge
    joined = ll.SimplicialComplex.connecting([w, -w]).grow().grow(seed=1)
    expected = 0.1 / math.log(2 * math.sqrt(3) / 4 * 2 * 10_000)
    assert paper_weight(joined, 0.1) == pytest.approx(expected, rel=0.01)
    for edge in (1.0001, 1.02, 1.1):  # little more than one: never more than what was asked
        line = ll.Simplex([torch.full((2,), edge / math.sqrt(2)).double()]).grow()
        assert LEAST <= paper_weight(line, 0.1) <= 0.1


def grown(folder, vertices=3, **more):
    case = CASES[0]
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    options = {
        "epochs": 2,
        "samples": 2,
        "strategy": "accumulate",
        "rise": 50.0,
        "points": 3,
        "checkpoint": folder,
        "optimizer": lambda ps: torch.optim.SGD(ps, lr=0.02),
        "validate": lambda shape: {"norm": shape.anchors.norm()},
    }
    return ll.spro(surface, w, vertices=vertices, **options | more)


def test_bit_equal_wherever_it_was_stopped(tmp_path):
    event = Count()
    with watched(event):
        whole = grown(tmp_path / "whole")
    assert event.count > 6

    def stop():
        raise Boom

    for at in range(1, event.count + 1, 5):
        with pytest.raises(Boom), watched(Count(at, stop)):
            grown(tmp_path / str(at))
        again = grown(tmp_path / str(at))
        assert torch.equal(again.anchors, whole.anchors), f"stopped at {at} of {event.count}"
        assert torch.equal(again.log.log_volume[1:], whole.log.log_volume[1:])
        assert torch.equal(again.log.metrics["norm"], whole.log.metrics["norm"])
        seconds = again.log.metrics["seconds"][1:]
        assert bool((seconds > 0.1 * whole.log.metrics["seconds"][1:]).all())


def test_a_volume_between_modes_goes_on_too(tmp_path):
    case = CASES[0]
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    options = {"connectors": 2, "epochs": 1, "samples": 2, "rise": 50.0, "points": 3}
    event = Count()
    with watched(event):
        whole = ll.connect_modes(surface, [w, w + 0.1], checkpoint=tmp_path / "whole", **options)

    def stop():
        raise Boom

    for at in range(1, event.count + 1, 5):
        call = {"checkpoint": tmp_path / str(at), **options}
        with pytest.raises(Boom), watched(Count(at, stop)):
            ll.connect_modes(surface, [w, w + 0.1], **call)
        assert torch.equal(ll.connect_modes(surface, [w, w + 0.1], **call).anchors, whole.anchors)


def test_the_same_call_gives_the_same_bits():
    first, second = (grown(None) for _ in range(2))
    assert torch.equal(first.anchors, second.anchors)


def test_what_stands_in_the_checkpoint_must_be_of_this_training(tmp_path):
    grown(tmp_path / "a", vertices=2)
    for change, message in (
        ({"optimizer": lambda ps: torch.optim.Adam(ps)}, r"optimizer: SGD.* there, Adam.* now"),
        ({"loader": list(CASES[0].batches())[:1]}, "batches: "),
        ({"strategy": "vmap"}, "strategy: accumulate there, vmap now"),
        ({"schedule": lambda o: ll.DecaySchedule(o, total=9)}, "schedule: NoneType there, Decay"),
    ):
        with pytest.raises(ll.ConfigError, match=message):
            grown(tmp_path / "a", **change)
    case = CASES[0]
    other = case.surface()
    w = other.layout.flatten(case.model())
    wrong = [(x, 1 - y.clamp(0, 1)) for x, y in case.batches()]
    surface = ll.LossSurface(case.model(), other.task, wrong)
    with pytest.raises(ll.ConfigError, match="of other data or another task: the loss"):
        ll.spro(
            surface, w, vertices=3, epochs=2, samples=2, strategy="accumulate", rise=50.0, points=3,
            checkpoint=tmp_path / "a", optimizer=lambda ps: torch.optim.SGD(ps, lr=0.02),
        )  # fmt: skip


def test_a_finished_checkpoint_goes_on_with_more_vertices_or_gives_fewer(tmp_path):
    three = grown(tmp_path / "a", vertices=3)
    four = grown(tmp_path / "a", vertices=4, count=None)
    assert four.log.examples == grown(tmp_path / "a", vertices=4).log.examples > 0
    assert torch.equal(four.anchors[:3], three.anchors)
    assert torch.equal(four.anchors, grown(tmp_path / "b", vertices=4).anchors)
    assert torch.equal(grown(tmp_path / "a", vertices=3).anchors, three.anchors)
    assert grown(tmp_path / "a", vertices=2).log.vertices.tolist() == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # no fit's is left
    with pytest.raises(ll.ConfigError, match=r"other settings.*epochs: 2 there, 3 now"):
        grown(tmp_path / "a", epochs=3)


def test_progress_is_of_all_vertices():
    seen = []
    grown(None, vertices=3, progress=lambda done, total: seen.append((done, total)))
    steps = 2 * 2 * len(list(CASES[0].batches()))  # vertices, epochs, batches
    assert seen[-1] == (steps, steps)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


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
    with pytest.raises(ll.ConfigError, match="validate: loss_max would stand in the place"):
        ll.spro(surface, w, vertices=2, epochs=1, validate=lambda shape: {"loss_max": 0.0})
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.spro(surface, torch.ones(5))
    with pytest.raises(ll.ConfigError, match="rise: expected a number of at least 0"):
        ll.spro(surface, w, rise=-1)
    with pytest.raises(TypeError, match="epoch_"):
        ll.spro(surface, w, epoch_=3)
