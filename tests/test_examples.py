"""The examples run in a few steps."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_surfaces_of_physics_informed_networks_are_drawn(tmp_path, monkeypatch, capsys):
    for library in ("matplotlib", "scipy"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(EXAMPLES / "pinn" / "pinn.py"))
    monkeypatch.setitem(example["train"].__globals__, "EPOCHS", 20)
    example["main"]()
    assert (tmp_path / "pinn.png").stat().st_size > 10_000
    output = capsys.readouterr().out
    assert all(f"speed {speed:g}: loss" in output for speed in example["SPEEDS"])
