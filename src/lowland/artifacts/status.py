"""What is known of each artifact of a run: done, under way, missing or stale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lowland.artifacts.lease import Owner

State = Literal["done", "under way", "started", "missing", "stale", "damaged", "given"]


@dataclass(frozen=True)
class Status:
    """The state of one artifact.

    Attributes:
        state: "given" for a source; "started" where a stopped build left a checkpoint. reason: why
            it is stale or damaged. size: bytes of what is published. seconds: that building took.
            owner: who builds it now.
    """

    name: str
    state: State
    reason: str = ""
    size: int = 0
    seconds: float | None = None
    owner: Owner | None = None
    inputs: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def is_done(self) -> bool:
        """Whether nothing has to be built."""
        return self.state in ("done", "given")
