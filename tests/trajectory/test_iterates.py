"""What is computed from a sequence of iterates."""

import pytest
import torch
from torch import nn

from lowland import SWA, SWAG, LowlandError, ParamLayout, Point, Trajectory
from tests.posteriors.contract import PosteriorContract
from tests.trajectory.nets import Net, stepped
from tests.trajectory.test_store import filled


class TestEnsembleView(PosteriorContract):
    """The store's ensemble keeps the contract of posteriors."""

    random = False
    buffers = {"b": torch.zeros(1)}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def make(self, size, dtype):
        path = self.folder / f"{size}-{dtype}"
        if path.exists():
            return Trajectory.open(path).ensemble()
        store = Trajectory.create(path, ParamLayout(nn.Linear(size, 1, bias=False, dtype=dtype)))
        g = torch.Generator().manual_seed(0)
        for step in range(3):
            w = torch.randn(size, generator=g, dtype=dtype)
            store.append(Point(w, {"b": torch.ones(1)}), step=step)
        return store.ensemble()


def test_views_equal_the_running_averages(tmp_path):
    model = Net()
    layout = ParamLayout(model)
    store = Trajectory.create(tmp_path / "run", layout)
    swa, swag = SWA(layout), SWAG(layout, rank=3)
    for i in range(7):
        store.append(stepped(model, i), step=i)
        swa.update(model)
        swag.update(model)
    reopened = Trajectory.open(tmp_path / "run")
    torch.testing.assert_close(reopened.swa(), swa.mean, rtol=1e-6, atol=1e-7)
    view = reopened.swag(rank=3)
    assert view.count == 7
    for name in ("mean", "variance", "deviations"):
        torch.testing.assert_close(getattr(view, name), getattr(swag, name), rtol=1e-6, atol=1e-6)
    half = reopened.swag(rank=3, deviations_dtype=torch.bfloat16)
    assert half.deviations.dtype == torch.bfloat16
    offline = torch.stack([p.weights.double() for p in reopened])
    torch.testing.assert_close(view.mean.double(), offline.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        view.variance.double(), offline.var(0, correction=0), rtol=1e-5, atol=1e-6
    )


def test_an_ensemble_reads_its_members_one_by_one(tmp_path, monkeypatch):
    store = filled(tmp_path / "run", 5)
    read = []
    original = Trajectory.__getitem__
    monkeypatch.setattr(
        Trajectory, "__getitem__", lambda self, i: (read.append(i), original(self, i))[1]
    )
    ensemble = store.ensemble()
    assert len(ensemble) == ensemble.support == 5
    assert len(read) <= 1
    read.clear()
    for i, point in enumerate(ensemble.points(7)):
        assert int(point.buffers["norm.num_batches_tracked"]) == i % 5
    assert read == [0, 1, 2, 3, 4, 0, 1]


def test_views_of_an_empty_store_say_so(tmp_path):
    store = Trajectory.create(tmp_path / "run", ParamLayout(Net()))
    for view in (store.swa, store.swag, store.ensemble):
        with pytest.raises(LowlandError, match="holds no iterate yet"):
            view()
