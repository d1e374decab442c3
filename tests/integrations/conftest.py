"""Tests with other people's trainers: imported only where they are asked for, which takes long."""

from pathlib import Path

import pytest

ALWAYS = ("test_collecting.py",)  # what the trainers share needs none of them


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves the trainers' files out unless `-m integrations` is given."""
    asked = "integrations" in config.option.markexpr
    left = "not integrations" in config.option.markexpr
    return None if collection_path.name in ALWAYS or (asked and not left) else True
