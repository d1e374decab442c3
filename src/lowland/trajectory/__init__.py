"""The walk of SGD: its iterates on disk, and what they average to."""

from lowland.trajectory.collect import Collector, Every, MidCycle
from lowland.trajectory.moments import EMA, SWA, SWAG
from lowland.trajectory.schedules import (
    ConstantSchedule,
    CyclicalSchedule,
    DecaySchedule,
    SWASchedule,
)
from lowland.trajectory.store import Trajectory

__all__ = [
    "EMA",
    "SWA",
    "SWAG",
    "Collector",
    "ConstantSchedule",
    "CyclicalSchedule",
    "DecaySchedule",
    "Every",
    "MidCycle",
    "SWASchedule",
    "Trajectory",
]
