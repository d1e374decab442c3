"""`lowland convert` writes the weights of pickled checkpoints as safetensors files."""

import argparse

import torch
from safetensors.torch import load_file

from tests.cli.inside import lowland


def test_weights_are_written_by_step(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for step in (5, 20):
        body = {"state_dict": {"net.w": torch.full((2,), float(step))}, "global_step": step}
        torch.save(body | {"options": argparse.Namespace(lr=0.1)}, source / f"step-{step}.ckpt")
    code, stdout, err = lowland("convert", source, "--out", tmp_path / "out", "--prefix", "net.")
    assert code == 0, err
    assert "Converted 2 checkpoints, steps 5 to 20" in stdout
    files = {path.name: load_file(path) for path in (tmp_path / "out").iterdir()}
    assert {name: file["w"].tolist() for name, file in files.items()} == {
        "step-5.safetensors": [5, 5],
        "step-20.safetensors": [20, 20],
    }


def test_files_that_hold_no_checkpoint(tmp_path):
    code, _, err = lowland("convert", tmp_path / "nothing.pt", "--out", tmp_path / "out")
    assert code == 2
    assert "no such file" in err
    assert not (tmp_path / "out").exists()
