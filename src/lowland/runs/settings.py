"""What the settings of artifacts share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings of an artifact whose result depends on how networks are evaluated.

    Attributes:
        evaluation: see `Run.evaluation`.
    """

    evaluation: Mapping[str, Any]
