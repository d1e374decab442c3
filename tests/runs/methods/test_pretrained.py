"""The pretrained network as a row of the table."""

import pytest
import torch

from lowland.errors import ConfigError
from lowland.runs.config import check_config
from lowland.runs.methods.pretrained import Pretrained
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from tests.runs.conftest import CONFIG


def run_of(**settings):
    config = check_config(CONFIG | {"methods": ["pretrained"]} | settings, where="here")
    return Run(config, Setup(config))


def test_it_is_the_network_of_the_checkpoint_and_costs_nothing(tmp_path):
    weights = run_of().setup.model(4).state_dict()
    torch.save(weights, tmp_path / "net.pt")
    run = run_of(start_from=str(tmp_path / "net.pt"))
    (method,) = run.methods
    method.check(run)
    assert run.parts(method) == []
    assert torch.equal(method.posterior(run, {}).draw(0), run.setup.layout.flatten(weights))


def test_it_needs_a_checkpoint():
    with pytest.raises(ConfigError, match="pretrained needs start_from"):
        Pretrained().check(run_of())
