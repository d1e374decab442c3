"""What a sampler runs, and how a run that was stopped begins again."""

from __future__ import annotations

import pytest
import torch

from lowland.errors import ConfigError
from lowland.samplers import Job
from lowland.samplers.job import Run, SavedRun
from tests.samplers.contract import linear
from tests.samplers.test_base import Metropolis


class SavedSteps(SavedRun):
    steps: int


def test_a_run_goes_on_with_its_random_numbers_its_seconds_and_its_evaluations(tmp_path):
    path, settings = tmp_path / "run.safetensors", {"sampler": "plain"}
    run = Run(linear(1, 1.0)[0], Job(checkpoint=path), settings, form=SavedSteps)
    run.density(torch.zeros(7, 1, dtype=torch.float64))
    run._before = 100.0
    torch.rand(5, generator=run.generator)
    run.save({"steps": 5})
    resumed = Run(linear(1, 1.0)[0], Job(checkpoint=path), settings, form=SavedSteps)
    assert resumed.saved["steps"] == 5
    assert resumed.density.evaluations == 7
    assert resumed.seconds() >= 100
    rest, again = (torch.rand(3, generator=one.generator) for one in (run, resumed))
    assert torch.equal(rest, again)
    with pytest.raises(ConfigError, match="sampler: plain there, other now"):
        Run(linear(1, 1.0)[0], Job(checkpoint=path), {"sampler": "other"}, form=SavedSteps)


def test_a_run_is_saved_when_the_time_has_come(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    run = Run(linear(1, 1.0)[0], Job(checkpoint=path), {"sampler": "plain"}, form=SavedSteps)
    run.save_if_due(lambda: {"steps": 1})
    assert not path.exists()
    monkeypatch.setattr("lowland.samplers.job.EVERY", 0.0)
    run.save_if_due(lambda: {"steps": 2})
    assert path.exists()


def test_memory_is_part_of_the_state(tmp_path):
    class Memory:
        state = 0

        def state_dict(self):
            return {"state": self.state}

        def load_state_dict(self, state):
            self.state = state["state"]

    first, second = Memory(), Memory()
    first.state = 3
    for memory in (first, second):
        density, _, _, _ = linear(1, 1.0)
        density.memory = memory
        job = Job(checkpoint=tmp_path / "run.safetensors")
        run = Run(density, job, {"sampler": "plain"}, form=SavedSteps)
        run.save({"steps": 1})
    assert second.state == 3


@pytest.mark.parametrize(
    "options",
    [
        {"chains": 0},
        {"samples": 0},
        {"thin": 0},
        {"warmup": -1},
        {"seed": -1},
        {"chains": 2.5},
        {"samples": None},
    ],
)
def test_a_job_that_makes_no_sense(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Job(**options)


def test_a_start_that_an_optimiser_made(tmp_path):
    job = Job(chains=2, samples=3, start=torch.zeros(2, requires_grad=True, dtype=torch.float32))
    chain = Metropolis().run(linear(2, 1.0)[0], job)
    assert torch.isfinite(chain.coords).all()


def test_another_start_is_another_run(tmp_path):
    def run(start):
        job = Job(chains=2, samples=3, start=start, checkpoint=tmp_path / "chains.safetensors")
        return Metropolis().run(linear(2, 1.0)[0], job)

    first = run(torch.zeros(2))
    assert torch.equal(run(torch.zeros(2)).coords, first.coords)
    for other in (torch.ones(2), None):
        with pytest.raises(ConfigError, match="start: "):
            run(other)


def test_a_start_of_another_shape():
    with pytest.raises(ConfigError, match="start"):
        Metropolis().run(linear(2, 1.0)[0], Job(chains=4, start=torch.zeros(3, 2)))
