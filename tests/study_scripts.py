"""Scripts of studies, run in this process, and random images for them."""

import os
import runpy
import sys
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from tests.zoo.pictures import pixels, png, write


def random_cifar10(folder: Path) -> Path:
    """The folder with random images in the place of CIFAR-10."""
    for name, n in (("train", 90), ("test", 20)):
        write(folder / f"{name}.parquet", [png(i) for i in pixels(n, n)], np.arange(n) % 10)
    return folder


def run_script(study: Path, data: Path, calls: list[list[str]]) -> list[str]:
    """What the smoke run of a study prints, for the further arguments of each call."""
    os.environ["LOWLAND_CACHE"] = str(data / "cache")
    smoke = ["--smoke", "--data", str(data), "--out", str(data / "out")]
    return [output_of(study / "run.py", [*smoke, *arguments]) for arguments in calls]


def output_of(script: Path, arguments: list[str]) -> str:
    """What a script prints, which ends with exit code 0."""
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    with redirect_stdout(StringIO()) as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so short a study makes many
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 0
    return out.getvalue()
