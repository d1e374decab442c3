"""Subspace inference: the average over chains in the trajectory's subspace."""

import pytest
import torch

from lowland.errors import ConfigError
from lowland.runs.run import Run


def test_draws_lie_in_the_subspace(finished, posterior_of):
    sub = finished.load(finished.run.subspace())
    w = posterior_of("subspace").draw(0)
    z = sub.basis.double() @ (w - sub.center).double() / sub.basis.double().square().sum(1)
    torch.testing.assert_close(sub.point(z).weights, w, rtol=1e-3, atol=1e-4)


def test_a_curve_is_refused_since_a_run_has_none_yet(finished):
    settings = finished.run.config.subspace.model_copy(update={"kind": "curve"})
    config = finished.run.config.model_copy(update={"subspace": settings})
    run = Run(config, finished.run.setup)
    with pytest.raises(ConfigError, match="a run has no curve yet"):
        finished.method("subspace").check(run)


def test_the_samplers_warnings_are_notes(finished):
    method, run = finished.method("subspace"), finished.run
    inputs = finished.inputs(method)
    message = inputs[run.chain().name].about["warnings"]
    notes = method.notes(run, inputs)
    assert notes == ([f"{method.label(run)}: {message}"] if message else [])
