"""Settings of artifacts that depend on how networks are evaluated."""

from dataclasses import FrozenInstanceError, asdict, dataclass

import pytest

from lowland.runs.settings import EvaluationSettings


@dataclass(frozen=True)
class Grid(EvaluationSettings):
    side: int


def test_evaluation_is_a_keyword_beside_the_settings_of_a_kind():
    grid = Grid(3, evaluation={"bn_rows": 5})
    assert asdict(grid) == {"side": 3, "evaluation": {"bn_rows": 5}}
    with pytest.raises(TypeError):
        Grid(3, {"bn_rows": 5})
    with pytest.raises(FrozenInstanceError):
        grid.side = 4
