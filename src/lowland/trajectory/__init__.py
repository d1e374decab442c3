"""SGD iterates on disk, and what they average to."""

from lowland.trajectory.checkpoint_conversion import convert_checkpoints
from lowland.trajectory.checkpoint_files import Checkpoint, find_checkpoints
from lowland.trajectory.checkpoint_tensors import read_checkpoint
from lowland.trajectory.collect import Collector, EndOfCycle, Every, MidCycle
from lowland.trajectory.ema import EMA
from lowland.trajectory.post_hoc_ema import PostHocEMA, PowerEMA
from lowland.trajectory.schedules import (
    ConstantSchedule,
    CyclicalCosineSchedule,
    CyclicalSchedule,
    DecaySchedule,
    SWASchedule,
)
from lowland.trajectory.sketch import FrequentDirections
from lowland.trajectory.store import Trajectory
from lowland.trajectory.swa import SWA
from lowland.trajectory.swag import SWAG

__all__ = [
    "EMA",
    "SWA",
    "SWAG",
    "Checkpoint",
    "Collector",
    "ConstantSchedule",
    "CyclicalCosineSchedule",
    "CyclicalSchedule",
    "DecaySchedule",
    "EndOfCycle",
    "Every",
    "FrequentDirections",
    "MidCycle",
    "PostHocEMA",
    "PowerEMA",
    "SWASchedule",
    "Trajectory",
    "convert_checkpoints",
    "find_checkpoints",
    "read_checkpoint",
]
