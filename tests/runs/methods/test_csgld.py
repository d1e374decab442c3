"""cSGLD in a run."""

import pytest
import torch

from lowland.errors import ConfigError
from lowland.runs.run import Run
from lowland.train import LangevinSGD


def with_settings(finished, **sections):
    config = finished.run.config
    changed = {
        name: getattr(config, name).model_copy(update=values) for name, values in sections.items()
    }
    return Run(config.model_copy(update=changed), finished.run.setup)


def test_members_lie_where_the_noise_is(finished, posterior_of):
    run = finished.run
    iterates = finished.load(run.csgld(0)).iterates
    assert iterates.steps == [9, 12, 21, 24]
    post = posterior_of("csgld")
    assert post.support == 4
    for i in range(4):
        assert torch.equal(post.draw(i), iterates[i].weights)


def test_the_noise_is_that_of_the_training_examples(finished):
    run = finished.run
    optimizer = run.csgld(0).optimizer({})([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, LangevinSGD)
    (group,) = optimizer.param_groups
    assert group["num_examples"] == len(run.setup.data["train"][0])
    train = run.config.train
    assert (group["lr"], group["momentum"]) == (train.lr, train.momentum)
    assert (group["weight_decay"], group["temperature"]) == (train.weight_decay, 1.0)
    assert (group["cycle"], group["explore"]) == (12, 0.5)


def test_it_pays_for_one_training(finished):
    (part,) = finished.method("csgld").parts(finished.run)
    assert part.share == 1
    assert part.artifact.passes({}) == finished.run.config.train.epochs


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"csgld": {"cycles": 13}}, r"csgld\.cycles: expected at most 12 .* got 13"),
        ({"csgld": {"cycles": 6, "members": 3}}, "csgld: members: expected at most 2, got 3"),
        ({"train": {"optimizer": "AdamW"}}, "expected train.optimizer: SGD, got AdamW"),
        ({"train": {"sam": 0.05}}, "csgld samples the posterior of the loss, and train.sam"),
    ],
    ids=["cycles", "members", "optimizer", "sam"],
)
def test_what_does_not_fit_is_refused(finished, sections, words):
    run = with_settings(finished, **sections)
    with pytest.raises(ConfigError, match=words):
        finished.method("csgld").check(run)
