"""The configurations and scripts that come with the project: they load, stop and go on."""

import inspect
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lowland.runs.config import read_config

ROOT = Path(__file__).parents[2]
CONFIGS = [ROOT / "configs" / "cifar10.yaml", ROOT / "studies" / "cifar10" / "full_size.yaml"]
FULL_SIZE = ROOT / "studies" / "cifar10" / "full_size.sh"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
@pytest.mark.parametrize(
    "override",
    [
        [],
        ["model.name=lowland.zoo:VGG16"],
        ["model.name=lowland.zoo:WideResNet"],
        ["model.name=lowland.zoo:PreResNet", "model.args.depth=164"],
    ],
    ids=lambda o: o[-1].split(":")[-1] if o else "as it is",
)
def test_configurations_name_what_there_is(path, override):
    config = read_config(path, override)
    for named in (config.model, config.data):
        inspect.signature(named.load()).bind(**named.args)


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
@pytest.mark.parametrize(("work", "code"), [("sleep 30", 124), ("exit 0", 0), ("exit 2", 2)])
def test_full_size_runs_in_pieces(tmp_path, work, code):
    """124: there is more to do. What the work itself says comes through."""
    if work.startswith("sleep"):
        body = "import time; time.sleep(30)"
    else:
        body = f"raise SystemExit({code})"
    program = tmp_path / "python"
    # in place of the interpreter: remembers its arguments
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/seen\nexec {sys.executable} -c "{body}"\n'
    )
    program.chmod(0o755)
    began = time.monotonic()
    out = subprocess.run(
        [FULL_SIZE, "seed=3", "out=runs/other place"],
        env=os.environ | {"PYTHON": str(program), "MINUTES": "0.01"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert out.returncode == code, out.stderr
    assert time.monotonic() - began < 20
    assert ("run the same command to go on" in out.stdout) == (code == 124)
    seen = (tmp_path / "seen").read_text().strip()
    assert seen == "-m lowland run studies/cifar10/full_size.yaml seed=3 out=runs/other place"
