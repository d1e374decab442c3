"""Moments of checkpoints go on where a stopped pass was, with the same bits."""

import pytest
import torch
from safetensors.torch import save_file

from lowland import EMA, SWAG
from lowland.artifacts import Checkpoint, Graph
from lowland.cli import average_moments
from lowland.cli.average_moments import CheckpointMean, CheckpointSet, CheckpointSWAG
from lowland.cli.checkpoints import select_checkpoints
from lowland.errors import ConfigError
from lowland.trajectory.checkpoint_tensors import layout_of
from lowland.trajectory.moments import Moments


@pytest.fixture
def checkpoints(tmp_path):
    g = torch.Generator().manual_seed(0)
    folder = tmp_path / "run"
    folder.mkdir()
    for step in range(6):
        save_file({"w": torch.randn(5, generator=g)}, folder / f"step-{step}.safetensors")
    selection = select_checkpoints([str(folder)])
    contents = selection.check()
    sources = selection.sources(lambda done, total: None)
    return CheckpointSet(selection, contents, layout_of(contents.tensors), None, sources)


def make(kind, checkpoints):
    if kind == "ema":
        return CheckpointMean(checkpoints, None, "ema", EMA, decay=0.5)
    return CheckpointSWAG(checkpoints, None, rank=3)


def quiet(done, total):
    pass


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", ["ema", "swag"])
def test_a_stopped_pass_goes_on_with_the_same_bits(
    tmp_path, monkeypatch, checkpoints, kind, mapped
):
    monkeypatch.setattr(average_moments, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(average_moments, "_SAVE_SHARE", 0)
    monkeypatch.setattr(average_moments, "IN_MEMORY", 0 if mapped else 1 << 30)
    whole = make(kind, checkpoints).build({}, Checkpoint(None), quiet)
    update, counts = Moments.update, []

    def stopping(self, source):
        if self.count == 4 and len(counts) == 4:
            raise KeyboardInterrupt
        update(self, source)
        counts.append(self.count)

    monkeypatch.setattr(Moments, "update", stopping)
    graph, artifact = Graph(tmp_path / "out"), make(kind, checkpoints)
    with pytest.raises(KeyboardInterrupt):
        graph.build([artifact])
    assert not list(tmp_path.rglob("deviations.tmp"))
    counts.append("stopped")
    graph.build([artifact])
    assert counts == [1, 2, 3, 4, "stopped", 5, 6]
    assert not list(tmp_path.rglob("deviations.tmp"))
    loaded = graph.load(artifact)
    assert loaded.count == 6
    assert torch.equal(loaded.mean, whole.mean)
    if kind == "swag":
        assert torch.equal(loaded.variance, whole.variance)
        assert torch.equal(loaded.deviations, whole.deviations)


def test_a_rank_is_at_most_the_number_of_checkpoints(tmp_path, checkpoints):
    artifact = CheckpointSWAG(checkpoints, None, rank=20)
    assert artifact.rank == 6
    graph = Graph(tmp_path / "out")
    graph.build([artifact])
    shown = SWAG.load(tmp_path / "out" / "swag.safetensors")
    w = torch.stack([checkpoints.trajectory(i, i + 1)[0].weights for i in range(6)])
    torch.testing.assert_close(shown.mean, w.mean(0))
    torch.testing.assert_close(shown.variance, w.var(0, correction=0))


def test_wrong_arguments_raise_before_anything_is_built(checkpoints):
    with pytest.raises(ConfigError, match="decay"):
        CheckpointMean(checkpoints, None, "ema", EMA, decay=1.5)
    with pytest.raises(ConfigError, match="rank: expected 0"):
        CheckpointSWAG(checkpoints, None, rank=1)


def test_the_order_of_checkpoints_is_part_of_the_fingerprint(checkpoints):
    turned = CheckpointSet(
        checkpoints.selection, checkpoints.last, checkpoints.layout, None, checkpoints.sources[::-1]
    )
    assert make("swag", turned).fingerprint != make("swag", checkpoints).fingerprint
