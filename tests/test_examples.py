"""The examples run in a few steps."""

import runpy
from pathlib import Path

import pytest
import torch

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


def test_ensembles_are_compared_with_averages(tmp_path, monkeypatch, capsys):
    for library in ("matplotlib", "sklearn"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # of other tests, too
    example = runpy.run_path(str(EXAMPLES / "ensemble_and_average" / "compare.py"))
    few = example["digits"](train=0.05, validation=0.9)
    small = {"EPOCHS": 1, "MEMBERS": 3, "SCALES": [0.5], "digits": lambda: few}
    for name, value in small.items():
        monkeypatch.setitem(example["main"].__globals__, name, value)
    example["main"]()
    assert (tmp_path / "ensemble-and-average.png").stat().st_size > 10_000
    lines = capsys.readouterr().out.splitlines()
    assert [line[:13] for line in lines[1:5]] == ["MLP, tanh    "] * 2 + ["ConvNet, ReLU"] * 2
    assert lines[0].endswith("nll_members  nll_ensemble  nll_average")


def test_a_flat_and_a_sharp_minimum_are_compared(tmp_path, monkeypatch, capsys):
    for library in ("matplotlib", "scipy", "sklearn"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # of other tests, too
    example = runpy.run_path(str(EXAMPLES / "flat_and_sharp" / "compare.py"))
    few = example["digits"](train=0.05, validation=0.9)
    for name, value in {"MOST_EPOCHS": 2, "digits": lambda: few}.items():
        monkeypatch.setitem(example["main"].__globals__, name, value)
    example["main"]()
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name in ("rays", "line"))
    header, small, large = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["network", "epochs", "loss"]
    assert small.startswith("batches of 32 ")
    assert large.startswith("batches of 600")
