"""Members of every form are the same points; wrong ones are named."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.averaging.members import read_members
from lowland.errors import ConfigError, DataError, LayoutError, NonFiniteError


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.fixture
def surface() -> ll.LossSurface:
    torch.manual_seed(0)
    return ll.LossSurface(net(), ll.Classification())


@pytest.fixture
def models() -> list[nn.Module]:
    torch.manual_seed(1)
    several = [net() for _ in range(3)]
    for model in several:
        model(torch.randn(9, 2))  # statistics of its own
    return several


def test_members_of_every_form(surface, models, tmp_path) -> None:
    weights = torch.stack([surface.layout.flatten(m) for m in models])
    traj = ll.Trajectory.create(tmp_path / "run", surface.layout)
    files = []
    for i, model in enumerate(models):
        traj.append(model, step=10 * i)
        files.append(tmp_path / f"step-{i}.pt")
        torch.save(model.state_dict(), files[-1])
    averages = []
    for model in models:
        averages.append(ll.SWA(surface.layout))
        averages[-1].update(model)
    forms = {
        "models": models,
        "state dicts": [m.state_dict() for m in models],
        "trajectory": traj,
        "folder of a trajectory": tmp_path / "run",
        "files": files,
        "pattern": str(tmp_path / "step-*.pt"),
        "averages": averages,
        "dict": dict(zip("abc", models, strict=True)),
        "dict of files": dict(zip("abc", files, strict=True)),
        "ensemble": traj.ensemble(),
        "generator": (m for m in models),
    }
    means = torch.stack([m[1].running_mean for m in models])
    for name, form in forms.items():
        points = read_members(surface, form)
        assert len(points) == 3, name
        assert torch.equal(torch.stack([p.weights for p in points]), weights), name
        buffers = torch.stack([p.buffers["1.running_mean"] for p in points])
        torch.testing.assert_close(buffers, means, msg=name)
    assert torch.equal(read_members(surface, weights)[-1].weights, weights[2])
    assert read_members(surface, traj).names == ["step 0", "step 10", "step 20"]
    assert read_members(surface, forms["dict of files"]).names == ["a", "b", "c"]
    part = read_members(surface, traj)[-2:]
    assert part.names == ["step 10", "step 20"]
    assert torch.equal(part[0].weights, weights[1])


def test_wrong_members_are_named(surface, models, tmp_path) -> None:
    for none in ([], torch.zeros(0, surface.layout.size), {}):
        with pytest.raises((ConfigError, DataError), match="at least one"):
            read_members(surface, none)
    with pytest.raises(DataError, match="expected several networks, got one"):
        read_members(surface, models[0])
    with pytest.raises(DataError, match="an iterable of networks, got int"):
        read_members(surface, 3)
    with pytest.raises(ConfigError, match="Gaussian has no members; draw some"):
        read_members(surface, ll.Gaussian(torch.zeros(4), torch.ones(4)))
    other = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with pytest.raises(LayoutError, match="member 1: "):
        list(read_members(surface, [models[0], other]))
    broken = surface.layout.flatten(models[0]).clone()
    broken[3] = torch.nan
    with pytest.raises(NonFiniteError, match="member b: "):
        list(read_members(surface, {"a": models[0], "b": broken}))
    with pytest.raises(LayoutError, match=r"member 0: expected weights .*, got str"):
        list(read_members(surface, ["not", models[0]]))
