"""The sections of curves, simplexes and subspaces: limits that depend on other keys."""

import pytest
from pydantic import ValidationError

from lowland.runs.shape_sections import Inference


def test_a_grid_has_at_most_three_directions():
    with pytest.raises(ValidationError, match="rank of at most 3"):
        Inference(rank=4, sampler="grid")
    assert Inference(rank=4, kind="curve", sampler="grid").sampler == "grid"
