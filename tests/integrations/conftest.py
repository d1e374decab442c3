"""Tests with other people's trainers: imported only where they are asked for, which takes long."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves these files out unless `-m integrations` is given."""
    asked = "integrations" in config.option.markexpr
    left = "not integrations" in config.option.markexpr
    return None if asked and not left else True
