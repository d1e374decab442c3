"""Networks that diverge among others, and checkpoints of many networks."""

import pytest
import torch

import lowland as ll
from lowland.tensor_files import same_tree
from tests.train.side_by_side import (
    REGRESSION,
    batches,
    convnet,
    mlp,
    pictures,
    seeded,
    table,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def exploding(m=2):
    """Examples of one network are so large that its loss overflows."""
    data = batches()
    x, y = table(m)
    data[m] = ll.Batches((x * 1e30, y), batch_size=5, seed=10 + m)
    return data


def test_a_diverging_network_is_named(tmp_path):
    members = ll.Members(seeded(mlp))
    before = members.weights.detach().clone()
    with pytest.raises(
        ll.NonFiniteError, match=r"loss is inf in network 2 of 4 at step 1 \(epoch 1"
    ):
        ll.sgd_members(members, REGRESSION, exploding(), epochs=2)
    assert torch.equal(members.weights, before)


def test_dropped_networks_leave_the_others_alone(tmp_path):
    def run(data, diverged="drop"):
        members = ll.Members(seeded(mlp))
        swag = ll.SWAG(ll.ParamLayout(members), rank=3)
        logs = ll.sgd_members(
            members, REGRESSION, data, epochs=3, diverged=diverged,
            collectors=[ll.Collector(swag, when=ll.Every(1))],
        )  # fmt: skip
        return members, logs, swag

    members, logs, swag = run(exploding())
    expected, other, _ = run(batches(), "stop")
    for m in (0, 1, 3):
        assert torch.equal(members.weights[m], expected.weights[m])
        assert torch.equal(logs[m].columns["loss"], other[m].columns["loss"])
    assert not members.weights[2].any()
    assert logs[2].columns["loss"].isnan().all()
    assert torch.isfinite(swag.mean).all()


@pytest.mark.parametrize("diverged", ["stop", "drop"])
def test_weights_that_overflow_after_a_finite_loss(diverged):
    """The collector would refuse the iterate of all networks."""
    members = ll.Members(seeded(mlp))
    swag = ll.SWAG(ll.ParamLayout(members), rank=2)
    rates = [1e-3, 1e39, 1e-3, 1e-3]

    def run():
        return ll.sgd_members(
            members, REGRESSION, batches(), epochs=1, diverged=diverged,
            optimizer=lambda p: ll.MemberSGD(p, lr=rates),
            collectors=[ll.Collector(swag, when=ll.Every(1))],
        )  # fmt: skip

    if diverged == "stop":
        with pytest.raises(ll.NonFiniteError, match="weights are NaN or infinite in network 1 of"):
            run()
        return
    logs = run()
    assert [bool(log.columns["loss"].isnan().any()) for log in logs] == [False, True, False, False]
    assert swag.count == 5


class Boom(Exception):
    """What the interrupted run dies of."""


@pytest.mark.parametrize("diverged", ["stop", "drop"])
def test_bit_equal_wherever_it_was_stopped(tmp_path, diverged):
    def run(folder, stop_at=None):
        members = ll.Members(seeded(convnet))
        swag = ll.SWAG(ll.ParamLayout(members), rank=2)
        collector = ll.Collector(swag, when=ll.Every(2))
        steps = 0

        def optimizer(parameters):
            made = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01)

            def count(*_):
                nonlocal steps
                steps += 1
                if steps == stop_at:
                    raise Boom

            made.register_step_post_hook(count)
            return made

        data = batches(pictures)
        if diverged == "drop":
            x, y = pictures(1)
            data[1] = ll.Batches((x * 1e30, y), batch_size=5, seed=11)
        logs = ll.sgd_members(
            members, ll.Classification(), data, epochs=3, optimizer=optimizer,
            schedule=lambda o: ll.DecaySchedule(o, total=15), collectors=[collector],
            checkpoint=folder / "run.safetensors", checkpoint_steps=2, diverged=diverged,
        )  # fmt: skip
        columns = [{k: v for k, v in log.columns.items() if k != "seconds"} for log in logs]
        return {"w": members.weights.detach(), "swag": swag.state_dict(), "logs": columns}

    expected = run(tmp_path / "whole")
    assert len(expected["logs"][0]["loss"]) == 3
    for at in range(1, 16, 2):
        folder = tmp_path / str(at)
        with pytest.raises(Boom):
            run(folder, at)
        assert same_tree(run(folder), expected), f"stopped at step {at}"
    # a run that is done does nothing, and gives the same
    assert same_tree(run(tmp_path / "whole", 1), expected)


def test_other_settings_are_refused(tmp_path):
    def run(seed):
        data = batches()
        data[3] = ll.Batches(table(3), batch_size=5, seed=seed)
        ll.sgd_members(
            ll.Members(seeded(mlp)), REGRESSION, data, epochs=1, checkpoint=tmp_path / "c"
        )

    run(13)
    with pytest.raises(ll.ConfigError, match="seeds"):
        run(14)
