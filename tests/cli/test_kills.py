"""A command that is killed at random moments of each kind of artifact ends with the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

METHODS = (
    *("sgd", "ensemble", "temperature", "ema", "swa", "swag", "fge", "snapshot", "csgld", "espro"),
    "subspace",
)
CONFIG = {
    "model": {"name": "lowland.zoo:ConvNet", "args": {"widths": [4], "classes": 10}},
    "data": {"name": "lowland.zoo:digits", "args": {"train": 0.1, "shift": 1}},
    "methods": list(METHODS),
    "ensemble": 2,
    "samples": 3,
    "threads": 1,
    "train": {"epochs": 3, "batch_size": 60, "lr": 0.1},
    "average": {"start": 0.6, "rank": 2, "scales": [0.5], "table": True},
    "fge": {"cycle": 1.0},
    "snapshot": {"cycles": 2},
    "csgld": {"cycles": 1, "members": 1},
    "simplex": {"vertices": 2, "epochs": 1, "samples": 2, "points": 2},
    "subspace": {"rank": 2, "chains": 2, "samples": 5, "warmup": 3, "temperature": 10},
}


TIMES = 4


@pytest.mark.soak
def test_kills_at_random_moments_of_every_kind_change_no_byte(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "config.yaml", tmp_path / "kills", str(TIMES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    results = dict(item for line in done.stdout.splitlines() for item in json.loads(line).items())
    for result in results.values():
        assert result["different"] == []
        assert min(result["kills"].values()) >= 1
    kinds = [kind for result in results.values() for kind in result["kills"]]
    assert {"companions", "curve", "mean", "method-metrics", "sharpness", "swag", "swa"} <= set(
        kinds
    )
    assert sum(sum(result["kills"].values()) for result in results.values()) >= 60
