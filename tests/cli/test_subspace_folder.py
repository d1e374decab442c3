"""A folder of a subspace: its centre and axes have names, and a run may hold several."""

import pytest
import torch

from lowland.cli.load_runs import load_runs
from lowland.cli.subspace_folder import SubspaceFolder
from lowland.geometry import Subspace


@pytest.mark.parametrize("rank", [1, 3])
def test_points_are_the_centre_and_a_unit_along_the_first_axes(finished_runs, tmp_path, rank):
    folder = SubspaceFolder(tmp_path / "subspace", load_runs(finished_runs[:1]), ["average-0"])
    subspace = Subspace.random(folder.weights[0], rank=rank, seed=1)
    subspace.save(folder.shape("subspace"))
    assert torch.equal(folder.subspace().basis, subspace.basis)
    points = folder.points()
    assert list(points) == ["center", "z1", "z2"][: rank + 1]
    center = points["center"].weights
    assert torch.equal(center, folder.weights[0].weights)
    for i in range(min(rank, 2)):
        torch.testing.assert_close(points[f"z{i + 1}"].weights, center + subspace.basis[i])
    assert all(map(folder.has_name, points))
    assert not folder.has_name("z3")
    assert folder.overlays(list(points)) == {}


def test_a_run_holds_a_folder_for_each_kind_and_sampler(finished_runs, tmp_path):
    runs = load_runs(finished_runs[:1])
    names = ["random-ess", "pca-ess"]
    for name in names:
        SubspaceFolder(tmp_path / "subspace" / name, runs, ["average-0"]).claim({})
    (tmp_path / "subspace" / "other").mkdir()
    assert SubspaceFolder.within(tmp_path) == [tmp_path / "subspace" / n for n in sorted(names)]
    assert SubspaceFolder.within(tmp_path / "subspace") == []
