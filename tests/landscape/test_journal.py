"""A scan that is stopped and goes on is one that was never stopped, bit by bit."""

import json

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.trajectory.journal import parse_line
from tests.landscape.surfaces import net_surface, overflowing, plane_of
from tests.models import CASES

OPTIONS = {"resolution": (7, 5), "metrics": ("loss", "error")}


@pytest.fixture(autouse=True)
def _one_thread(same_threads):
    torch.set_num_threads(1)


class Stop(Exception):
    pass


def stopping(after):
    """Progress that stops at its call number `after`."""
    calls = []

    def report(done, total):
        calls.append(done)
        if len(calls) == after:
            raise Stop

    return report


def same(a, b):
    for name, values in a.metrics.items():
        assert values.numpy().tobytes() == b.metrics[name].numpy().tobytes(), name
    assert torch.equal(a.x, b.x)
    assert (a.evaluated_mask is None and b.evaluated_mask is None) or torch.equal(
        a.evaluated_mask, b.evaluated_mask
    )
    assert a.about == b.about


def setting(name):
    if name == "batchnorm":
        case = next(case for case in CASES if case.name == "conv_bn")
        surface = case.surface()
        w = surface.layout.flatten(case.model())
        return ll.Plane(w, *ll.directions(surface, w)), surface
    surface = net_surface()
    return plane_of(surface, scale=2.0), surface


@pytest.mark.parametrize("strategy", ["points", "batches", "vmap"])
@pytest.mark.parametrize("model", ["mlp", "batchnorm"])
@pytest.mark.parametrize("refine", [None, 0.05])
def test_stopped_after_any_number_of_chunks(tmp_path, strategy, model, refine):
    plane, surface = setting(model)
    options = OPTIONS | {"strategy": strategy, "chunk": 4, "refine": refine}
    if refine:
        options["resolution"] = (13, 11)
    whole = ll.scan(plane, surface, **options)
    for after in (1, 4, 9):
        path = tmp_path / f"{after}.scan"
        with pytest.raises(Stop):
            ll.scan(plane, surface, store=path, progress=stopping(after), **options)
        plane, surface = setting(model)  # another process
        same(whole, ll.scan(plane, surface, store=path, **options))


def test_stopped_again_and_again(tmp_path):
    plane, surface = setting("mlp")
    path = tmp_path / "a.scan"
    options = OPTIONS | {"strategy": "vmap", "chunk": 4}
    whole = ll.scan(plane, surface, **options)
    stops = 0
    while stops < 20:
        try:
            result = ll.scan(plane, surface, store=path, progress=stopping(3), **options)
            break
        except Stop:
            stops += 1
    assert stops >= 3
    same(whole, result)


def test_a_plan_that_was_chosen_is_kept(tmp_path, monkeypatch):
    """The planner times, and may choose otherwise the next time: chunks stay as they were."""
    plane, surface = setting("mlp")
    path = tmp_path / "a.scan"
    options = OPTIONS | {"resolution": 12}
    with pytest.raises(Stop):
        ll.scan(plane, surface, store=path, progress=stopping(2), **options)
    header = json.loads(parse_line(path.read_bytes().split(b"\n")[0]))
    monkeypatch.setattr("lowland.evaluate.engine.plan", lambda *a, **k: pytest.fail("planned"))
    result = ll.scan(plane, surface, store=path, **options)
    assert f"{header['plan']['chunk']} at once" in result.about["plan"]


def cut(path, whole, at):
    path.write_bytes(whole[:at])
    return path


def test_cut_off_at_any_byte_costs_at_most_a_chunk(tmp_path):
    plane, surface = setting("mlp")
    options = OPTIONS | {"strategy": "vmap", "chunk": 8}
    path = tmp_path / "a.scan"
    whole = ll.scan(plane, surface, store=path, **options)
    raw = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(raw) if byte == 10]
    assert len(ends) == 1 + 5  # settings, and 35 points by 8
    evaluated = []
    inner = surface.forward
    surface.forward = lambda *a, **k: evaluated.append(1) or inner(*a, **k)
    for at in [*ends, *range(ends[0] + 1, len(raw), 97)]:
        evaluated.clear()
        result = ll.scan(plane, surface, store=cut(path, raw, at), **options)
        same(whole, result)
        left = sum(end > at for end in ends)
        assert len(evaluated) == 3 * left  # three batches a chunk
        assert path.read_bytes() == raw


def test_a_damaged_line_is_made_again(tmp_path):
    plane, surface = setting("mlp")
    options = OPTIONS | {"strategy": "points", "chunk": 8}
    path = tmp_path / "a.scan"
    whole = ll.scan(plane, surface, store=path, **options)
    raw = bytearray(path.read_bytes())
    line = raw.index(b"\n", raw.index(b"\n") + 1) + 40
    raw[line] ^= 1
    path.write_bytes(raw)
    same(whole, ll.scan(plane, surface, store=path, **options))


def test_a_finished_scan_is_read_and_not_made_again(tmp_path, monkeypatch):
    plane, surface = setting("mlp")
    whole = ll.scan(plane, surface, store=tmp_path / "a.scan", **OPTIONS)
    monkeypatch.setattr(surface, "forward", lambda *a, **k: pytest.fail("evaluated"))
    same(whole, ll.scan(plane, surface, store=tmp_path / "a.scan", **OPTIONS))


def test_nan_comes_back_as_nan(tmp_path):
    surface, plane = overflowing()
    options = {"resolution": (5, 2), "bounds": ((0, 200), (-1, 1)), "store": tmp_path / "a.scan"}
    whole = ll.scan(plane, surface, **options)
    assert whole.loss.isnan().any()
    same(whole, ll.scan(plane, surface, **options))


CHANGES = {
    "x": {"resolution": (6, 5)},
    "y": {"bounds": ((-1, 1), (-1, 2))},
    "metrics": {"metrics": ("loss",)},
    "batchnorm": {"batchnorm": "frozen"},
    "refine": {"refine": 0.1},
    "chunk": {"chunk": 3},
    "examples": {"count": 7},
    "together": {"together": [torch.zeros(3)]},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_of_other_settings_is_refused_by_name(tmp_path, name):
    plane, surface = setting("batchnorm")
    path = tmp_path / "a.scan"
    ll.scan(plane, surface, store=path, **OPTIONS | {"resolution": 2})
    options = OPTIONS | {"resolution": 2} | CHANGES[name]
    if name == "together":
        options["together"] = [plane.center]
    before = path.read_bytes()
    with pytest.raises(ll.ConfigError, match=rf"other settings \(.*\b{name}: .* there, .* now"):
        ll.scan(plane, surface, store=path, **options)
    assert path.read_bytes() == before


def test_other_weights_and_another_model_are_refused(tmp_path):
    plane, surface = setting("mlp")
    path = tmp_path / "a.scan"
    options = {"resolution": 2, "bounds": ((0, 1), (0, 1)), "store": path}
    ll.scan(plane, surface, **options)
    other = plane.with_anchors(plane.anchors + 1)
    with pytest.raises(ll.ConfigError, match="shape: Plane"):
        ll.scan(other, surface, **options)
    torch.manual_seed(0)
    relu = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7, affine=False), nn.Linear(7, 3))
    fresh = ll.LossSurface(relu, ll.Classification(), surface.data.loader)
    with pytest.raises(ll.ConfigError, match=r"model: .* there"):
        ll.scan(plane, fresh, **options)


def test_files_that_are_no_scans_are_left_alone(tmp_path):
    plane, surface = setting("mlp")
    path = tmp_path / "notes.txt"
    for text in (b"my notes\n", b"my notes", b""):
        path.write_bytes(text)
        with pytest.raises(ll.StoreError, match=r"not lowland's|its format is"):
            ll.scan(plane, surface, resolution=2, store=path)
        assert path.read_bytes() == text
