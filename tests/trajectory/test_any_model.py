"""Any model: its iterates and their moments come back from files with their buffers."""

import pytest
import torch
from safetensors.torch import save_file

import lowland as ll
from lowland.core.buffers import buffers_of
from lowland.trajectory.checkpoint_tensors import layout_of, read_checkpoint
from tests.models import Case, every_case, nearby, with_other_buffers


def assert_same(buffers, expected):
    assert (buffers or {}).keys() == expected.keys()
    for name, value in expected.items():
        assert buffers[name].dtype == value.dtype
        torch.testing.assert_close(buffers[name], value, rtol=0, atol=0, equal_nan=True)


@every_case
def test_iterates_and_their_moments_keep_their_buffers(case: Case, tmp_path):
    model, layout = case.model(), ll.ParamLayout(case.model())
    store = ll.Trajectory.create(tmp_path / "store", layout)
    moments = [ll.SWA(layout), ll.EMA(layout, decay=0.5), ll.SWAG(layout, rank=2)]
    expected = []
    for step in (1, 2):
        layout.load_(model, nearby(layout.flatten(model), step))
        with_other_buffers(model)
        store.append(model, step=step)
        for one in moments:
            one.update(model)
        expected.append((layout.flatten(model), buffers_of(model)))
    store = ll.Trajectory.open(tmp_path / "store")
    for point, (w, buffers) in zip(store, expected, strict=True):
        assert torch.equal(point.weights, w)
        assert_same(point.buffers, buffers)
    first, last = (buffers for _, buffers in expected)
    mean = {
        n: ((first[n].double() + b.double()) / 2).to(b) if b.is_floating_point() else b
        for n, b in last.items()
    }
    for one in moments:
        again = type(one).load(one.save(tmp_path / "moments.safetensors"), layout=layout)
        assert_same(again.buffers, last if isinstance(one, ll.EMA) else mean)
        assert torch.equal(again.point.weights, one.mean)
    assert_same(store.average().buffers, mean)


@pytest.mark.parametrize("name", ["running_mean", "0.mean"])
def test_a_layout_from_a_file_averages_no_running_statistics(name, tmp_path):
    """They belong to no average; a user's own cannot be told from weights, and are averaged."""
    for i in (1, 2):
        tensors = {"weight": torch.full((2,), float(i)), name: torch.full((2,), 10.0 * i)}
        save_file(tensors | {"steps": torch.tensor(i)}, tmp_path / f"step-{i}.safetensors")
    files = [tmp_path / f"step-{i}.safetensors" for i in (1, 2)]
    layout = layout_of(read_checkpoint(files[0]))
    swa = ll.SWA(layout)
    ll.Trajectory.from_checkpoints(files, layout).into(swa)
    assert swa.buffers == {"steps": torch.tensor(2)}
    assert layout.size == (2 if name == "running_mean" else 4)
