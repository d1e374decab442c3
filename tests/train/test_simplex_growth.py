"""Growth vertex by vertex: the weight of the volume, checkpoints, progress."""

import math

import pytest
import torch

import lowland as ll
from lowland.train.simplex_growth import MIN_VOLUME_WEIGHT, paper_volume_weight
from tests.models import CASES
from tests.train.resuming import Boom, Count, watched


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def test_the_papers_rule_for_the_weight_of_the_volume():
    g = torch.Generator().manual_seed(0)
    w = torch.randn(10_000, generator=g)
    simplex = ll.Simplex([w, w + 0.1 * torch.randn(10_000, generator=g)]).grow()
    # all three vertices are noise: a regular triangle, whatever the fitted one is
    expected = 1e-6 / math.log(math.sqrt(3) / 4 * 2 * 10_000)
    assert paper_volume_weight(simplex, 1e-6) == pytest.approx(expected, rel=0.01)
    near = simplex.with_anchors(w + 1e-3 * (simplex.anchors - w))
    assert paper_volume_weight(near, 1e-6) == pytest.approx(expected, rel=0.01)
    small = simplex.with_anchors(1e-3 * simplex.anchors)  # a volume below one
    assert paper_volume_weight(small, 1e-6) == MIN_VOLUME_WEIGHT
    assert paper_volume_weight(simplex, 1e-10) == MIN_VOLUME_WEIGHT
    # of the same structure: two triangles that share an edge
    joined = ll.SimplicialComplex.connecting([w, -w]).grow().grow(seed=1)
    expected = 0.1 / math.log(2 * math.sqrt(3) / 4 * 2 * 10_000)
    assert paper_volume_weight(joined, 0.1) == pytest.approx(expected, rel=0.01)
    for edge in (1.0001, 1.02, 1.1):  # little more than one: never more than what was asked
        line = ll.Simplex([torch.full((2,), edge / math.sqrt(2)).double()]).grow()
        assert MIN_VOLUME_WEIGHT <= paper_volume_weight(line, 0.1) <= 0.1


def grow_simplex(folder, vertices=3, **more):
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
        whole = grow_simplex(tmp_path / "whole")
    assert event.count > 6

    def stop():
        raise Boom

    for at in range(1, event.count + 1, 5):
        with pytest.raises(Boom), watched(Count(at, stop)):
            grow_simplex(tmp_path / str(at))
        again = grow_simplex(tmp_path / str(at))
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
    first, second = (grow_simplex(None) for _ in range(2))
    assert torch.equal(first.anchors, second.anchors)


def test_what_stands_in_the_checkpoint_must_be_of_this_training(tmp_path):
    grow_simplex(tmp_path / "a", vertices=2)
    for change, message in (
        ({"optimizer": lambda ps: torch.optim.Adam(ps)}, r"optimizer: SGD.* there, Adam.* now"),
        ({"loader": list(CASES[0].batches())[:1]}, "batches: "),
        ({"strategy": "vmap"}, "strategy: accumulate there, vmap now"),
        ({"schedule": lambda o: ll.DecaySchedule(o, total=9)}, "schedule: NoneType there, Decay"),
    ):
        with pytest.raises(ll.ConfigError, match=message):
            grow_simplex(tmp_path / "a", **change)
    case = CASES[0]
    other = case.surface()
    w = other.layout.flatten(case.model())
    wrong = [(x, 1 - y.clamp(0, 1)) for x, y in case.batches()]
    surface = ll.LossSurface(case.model(), other.task, wrong)
    with pytest.raises(ll.ConfigError, match="comes from other data or another task: the loss"):
        ll.spro(
            surface, w, vertices=3, epochs=2, samples=2, strategy="accumulate", rise=50.0, points=3,
            checkpoint=tmp_path / "a", optimizer=lambda ps: torch.optim.SGD(ps, lr=0.02),
        )  # fmt: skip


def test_a_finished_checkpoint_goes_on_with_more_vertices_or_gives_fewer(tmp_path):
    three = grow_simplex(tmp_path / "a", vertices=3)
    four = grow_simplex(tmp_path / "a", vertices=4, count=None)
    assert four.log.examples == grow_simplex(tmp_path / "a", vertices=4).log.examples > 0
    assert torch.equal(four.anchors[:3], three.anchors)
    assert torch.equal(four.anchors, grow_simplex(tmp_path / "b", vertices=4).anchors)
    assert torch.equal(grow_simplex(tmp_path / "a", vertices=3).anchors, three.anchors)
    assert grow_simplex(tmp_path / "a", vertices=2).log.vertices.tolist() == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # no fit's is left
    with pytest.raises(ll.ConfigError, match=r"other settings.*epochs: 2 there, 3 now"):
        grow_simplex(tmp_path / "a", epochs=3)


def test_progress_is_of_all_vertices():
    seen = []
    grow_simplex(None, vertices=3, progress=lambda done, total: seen.append((done, total)))
    steps = 2 * 2 * len(list(CASES[0].batches()))  # vertices, epochs, batches
    assert seen[-1] == (steps, steps)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
