"""The plan of a run: recorded once, taken over by `plan=`, and refused where it does not fit."""

import json

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lowland as ll
from lowland.core.options import Plan
from lowland.errors import ConfigError, StoreError
from lowland.evaluate import planner
from lowland.records import SurfaceResult
from lowland.runs.config import check_config
from lowland.runs.plan import RunPlan
from lowland.runs.setup import Setup
from tests.cli.inside import lowland
from tests.runs.conftest import CONFIG, run_in

APART = {"events.jsonl", "timing.json"}
VMAP = RunPlan(1, Plan("vmap", 16, 1), Plan("vmap", 4, 1))


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in APART and path.suffix != ".lock"
    }


def different(one, other):
    first, second = files_of(one), files_of(other)
    return sorted(n for n in first.keys() | second if first.get(n) != second.get(n))


@pytest.fixture
def other_planner(monkeypatch):
    """A planner that finds another strategy to be the fastest than any real one."""

    def fastest(surface, point, work, options, **_):
        return Plan("vmap", 3, 1, seconds=1e-4)

    monkeypatch.setattr(planner, "_fastest", fastest)


def test_by_the_plan_of_another_run_all_files_are_equal(finished, tmp_path, other_planner):
    """Growth, chains, their plane, curves and scans included; without it last bits differ."""
    plan = finished.folder / "plan.json"
    folder, _ = run_in(tmp_path, f"plan={plan}")
    assert different(finished.folder, folder) == []
    names = "\n".join(files_of(folder))
    for part in ("growth-simplex-0", "posterior-plane", "chain.npz", "path-bezier", "surface.npz"):
        assert part in names
    (tmp_path / "twin").mkdir()
    twin, _ = run_in(tmp_path / "twin", "methods=[espro]")
    assert RunPlan.read(twin / "plan.json").evaluation == Plan("vmap", 3, 1)
    growth = "records/growth-simplex-0.json"
    assert (twin / growth).is_file()
    assert growth in different(finished.folder, twin)


def test_stages_evaluate_by_the_plan_of_their_run(finished, tmp_path, other_planner):
    expected = RunPlan.read(finished.folder / "plan.json").evaluation
    text = f"{expected.strategy}, {expected.chunk} at once, threads: {expected.threads}"
    options = ["--plane", "sgd-0,sgd-1", "--resolution", 2, "--out", tmp_path / "scan"]
    code, _, err = lowland("scan", finished.folder, *options)
    assert code == 0, err
    for scan in (finished.folder / "connect/plane", tmp_path / "scan"):
        record = SurfaceResult.load(scan / "records/surface.npz")
        assert record.about["plan"] == text


def test_a_folder_keeps_its_plan(finished, tmp_path):
    plan = RunPlan(1, Plan("batches", 5, 1), Plan("points", 1, 1))
    plan.write(tmp_path / "plan.json")
    config = finished.folder.parent / "config.yaml"
    before = files_of(finished.folder)
    code, _, err = lowland("run", config, f"out={finished.folder}", f"plan={tmp_path}/plan.json")
    assert code == 2
    assert "was computed by another plan" in err.replace("\n", " ")
    assert files_of(finished.folder) == before


def test_a_plan_is_read_as_it_was_written(tmp_path):
    VMAP.write(tmp_path / "plan.json")
    assert RunPlan.read(tmp_path / "plan.json") == VMAP


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "lowland-plan-9"}, "its format is 'lowland-plan-9'"),
        ({"threads": 0}, "expected 1 to 1024 threads, got 0"),
        ({"density": {"strategy": "all", "chunk": 1, "threads": 1}}, "density.strategy"),
        ({"gpus": 1}, "unknown field 'gpus'"),
    ],
)
def test_a_plan_that_is_none_is_refused(change, words, tmp_path):
    file = tmp_path / "plan.json"
    VMAP.write(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(StoreError, match=words):
        RunPlan.read(file)


def test_a_plan_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no such plan; name the plan\.json"):
        RunPlan.read(tmp_path / "plan.json")


class Counting(nn.Module):
    """A network that vmap cannot map over: it looks at values."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        y = self.linear(x.flatten(1))
        return y if float(y.detach().sum()) > 0 else y + 0.0


class Recomputing(nn.Module):
    """A network that recomputes activations in evaluation mode, too."""

    def __init__(self):
        super().__init__()
        self.hidden, self.last = nn.Linear(64, 4), nn.Linear(4, 10)

    def forward(self, x):
        return self.last(checkpoint(self.hidden, x.flatten(1), use_reentrant=False).tanh())


def setup_of(model=None, **settings):
    changes = {"model": {"name": f"tests.runs.test_plan:{model}"}} if model else {}
    return Setup(check_config(CONFIG | changes | settings, where="here"))


@pytest.mark.parametrize("model", [Counting.__name__, Recomputing.__name__])
def test_vmap_is_neither_recorded_nor_taken_where_it_does_not_apply(model):
    setup = setup_of(model)
    plan = RunPlan.timed(setup)
    assert plan.density.strategy != "vmap"
    setup.follow(plan)
    sub = ll.Subspace.random(setup.layout.flatten(setup.model(0)), rank=2)
    likelihood = ll.LogLikelihood(setup.surface, options=setup.density_options())
    values, gradients = likelihood.value_and_grad(sub, torch.randn(3, 2))
    assert torch.isfinite(values).all()
    assert torch.isfinite(gradients).all()
    with pytest.raises(ConfigError, match=f"it does not fit .*{model} .*leave plan= out"):
        VMAP.require_fit(setup)


def test_log_densities_in_half_precision_are_taken_one_by_one():
    setup = setup_of(autocast="bfloat16")
    assert RunPlan.timed(setup).density.strategy == "points"
    with pytest.raises(ConfigError, match="several points at once have other values"):
        VMAP.require_fit(setup)


def test_a_plan_for_other_threads_is_refused():
    setup = setup_of(threads=2)
    with pytest.raises(ConfigError, match="it is for 1 threads, and threads is 2"):
        VMAP.require_fit(setup)


def test_a_plan_that_fits_is_followed():
    setup = setup_of()
    VMAP.require_fit(setup)
    setup.follow(VMAP)
    assert setup.surface.options.plan == VMAP.evaluation
    assert setup.density_options().plan == VMAP.density
    weights = setup.layout.flatten(setup.model(0))[None].repeat(5, 1)
    values = ll.LogLikelihood(setup.surface, options=setup.density_options())(weights)
    assert torch.allclose(values, values[:1].expand(5))
