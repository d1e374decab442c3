"""What the callbacks of trainers share: which weights count as iterates."""

import pytest
import torch
from torch import nn

from lowland import SWA, Trajectory
from lowland.errors import ConfigError
from lowland.integrations.iterate_collector import IterateCollector


def moved(net, by=1.0):
    with torch.no_grad():
        net.weight.add_(by)


def behind(net):
    """As fused kernels of other libraries write: torch does not see it."""
    net.weight.data.add_(1.0)


def begun(net, *targets, **options):
    collector = IterateCollector(targets or (SWA,), **({"start": 0.0, "every_steps": 1} | options))
    collector.begin(net)
    return collector


def test_weights_that_stand_still_are_no_iterate():
    net = nn.Linear(1, 1, bias=False)
    collector = begun(net)
    found = []
    for step in range(6):
        if step % 2 == 0:
            moved(net)
        found.append(collector.step(net, step=step, share=0.0))
    assert found == [True, False] * 3


def test_steps_that_torch_does_not_see_are_taken_from_the_trainer():
    net = nn.Linear(1, 1, bias=False)
    collector = begun(net)
    for step in (1, 2, 2, 3):
        behind(net)
        collector.step(net, step=step, share=0.0)
    assert collector.targets[0].count == 3


def test_parameters_whose_data_are_replaced_have_moved():
    net = nn.Linear(1, 1, bias=False)
    collector = begun(net)
    keep = []
    for _ in range(3):
        keep.append(net.weight.data)  # or its memory might be used again
        net.weight.data = net.weight.data + 1
        assert collector.step(net, step=0, share=0.0)


@pytest.mark.parametrize(
    ("start", "total", "first"), [(0.55, 100, 55), (0.7, 10, 7), (0.1, 30, 3), (1.0, 7, 7)]
)
def test_a_share_that_is_no_binary_fraction_starts_where_it_says(start, total, first, tmp_path):
    net = nn.Linear(1, 1, bias=False)
    collector = begun(net, tmp_path / "walk", start=start)
    for step in range(1, total + 1):
        moved(net)
        collector.step(net, step=step, share=step / total)
    assert Trajectory.open(tmp_path / "walk").steps[0] == first


def test_epochs_count_where_they_end():
    net = nn.Linear(1, 1, bias=False)
    collector = begun(net, every_steps=None, every_epochs=2)
    for step in range(1, 25):
        moved(net)
        collector.step(net, step=step, share=0.0, epoch=None if step % 3 else step // 3)
    assert collector.end() == "4 iterates were collected, from step 6 to step 24."


def test_a_state_goes_on(tmp_path):
    """Every third iterate, of which a checkpoint falls in between."""
    net = nn.Linear(1, 1, bias=False)
    one = begun(net, SWA, tmp_path / "walk", every_steps=3)
    for _ in range(4):
        moved(net)
        one.step(net, step=0, share=0.0)
    state = one.state_dict()
    moved(net)
    one.step(net, step=0, share=0.0)
    other = IterateCollector((SWA, tmp_path / "walk"), start=0.0, every_steps=3)
    other.load_state_dict(state)
    other.begin(net)
    taken = []
    for _ in range(5):
        moved(net)
        taken.append(other.step(net, step=0, share=0.0))
    assert taken == [False, True, False, False, True]
    assert other.targets[1].steps == [3, 6, 9]
    last = IterateCollector((SWA, tmp_path / "walk"), start=0.0, every_steps=3)
    last.load_state_dict(other.state_dict())
    last.begin(net)
    assert "No iterate was collected" in last.end()  # nor need there be: no warning


def test_a_share_of_no_budget_is_refused():
    with pytest.raises(ConfigError, match=r"start=0.75 is no share of one; .* or start=0\."):
        IterateCollector(()).begin(nn.Linear(1, 1), budget=False)
    IterateCollector((), start=0.0).begin(nn.Linear(1, 1), budget=False)
