"""Finished toy runs that are made once for all workers of a test session, and copied."""

import os
import shutil
import subprocess
import sys

import yaml
from filelock import FileLock

from lowland.cli.trust import remember
from lowland.runs.config import check_config
from tests.cli.inside import lowland


def copy_of(tmp_path_factory, name, make):
    """A copy of the folder that `make(folder)` fills, called by the first worker that needs it."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    place, work = root / f"shared-{name}", root / f"making-{name}"
    with FileLock(f"{place}.lock"):
        if not place.is_dir():
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            make(work)
            os.replace(work, place)
    copy = shutil.copytree(place, tmp_path_factory.mktemp(name) / "runs")
    for file in copy.rglob("config.yaml"):  # runs that another worker made are trusted here too
        remember(check_config(yaml.safe_load(file.read_text())["settings"], where=str(file)))
    return copy


def made(folder, name, config, *overrides, pictures=False):
    """A run in `folder/name`, and what it printed."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    code, out, err = lowland("run", file, f"out={folder / name}", *overrides, pictures=pictures)
    assert code == 0, err
    return folder / name, out


def process(*args):
    """The command in a process as its users start it."""
    command = [sys.executable, "-m", "lowland", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
