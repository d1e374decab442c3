"""What tests of the zoo share: a cache of decoded images of their own, and files of images."""

from pathlib import Path

import numpy as np
import pytest

from tests.zoo.pictures import pixels, png, write


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LOWLAND_CACHE", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Parquet files of 60 training and 40 test images, as `datasets` writes CIFAR-10."""
    for name, n, seed in (("train", 60, 0), ("test", 40, 1)):
        write(tmp_path / f"{name}.parquet", [png(i) for i in pixels(n, seed)], np.arange(n) % 10)
    return tmp_path
