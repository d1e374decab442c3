"""Methods of members that are collected in cycles: one training, its members, its picture."""

from types import SimpleNamespace

import pytest

from lowland.errors import ConfigError
from lowland.runs.methods.cycles import CyclesMethod
from tests.runs.test_segments import run_of


@pytest.mark.parametrize("name", ["csgld", "snapshot"])
def test_a_method_stands_on_one_training_in_cycles(name):
    sections = {"csgld": {"cycles": 1, "members": 2}, "snapshot": {"cycles": 2}}
    run = run_of(methods=[name], **{name: sections[name]})
    (method,) = run.methods
    assert isinstance(method, CyclesMethod)
    training = method.cycles(run)
    assert [part.artifact for part in method.parts(run)] == [training]
    assert training.name == f"train/{name}-0"
    (picture,) = method.pictures(run)
    assert picture.inputs == (training,)
    members = [object(), object()]
    trained = SimpleNamespace(iterates=SimpleNamespace(ensemble=lambda: members))
    assert method.posterior(run, {training.name: trained}) is members


@pytest.mark.parametrize("name", ["csgld", "snapshot"])
def test_cycles_that_do_not_fit_the_budget_are_refused(name):
    run = run_of(methods=[name], **{name: {"cycles": 1000}})
    with pytest.raises(ConfigError, match=f"{name}.cycles: expected at most"):
        run.methods[0].check(run)
