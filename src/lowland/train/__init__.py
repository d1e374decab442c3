"""Training: trajectories by plain SGD, and shapes of low loss."""

from lowland.train.batches import Batches
from lowland.train.best_threads import best_threads
from lowland.train.by_name import optimizer_named, schedule_named
from lowland.train.fit import fit
from lowland.train.langevin import LangevinSGD
from lowland.train.members import Members, MemberSGD
from lowland.train.options import TrainOptions
from lowland.train.sam import SAM
from lowland.train.sgd import sgd
from lowland.train.sgd_members import sgd_members
from lowland.train.spro import connect_modes, spro
from lowland.train.training_state import TrainingState

__all__ = [
    "SAM",
    "Batches",
    "LangevinSGD",
    "MemberSGD",
    "Members",
    "TrainOptions",
    "TrainingState",
    "best_threads",
    "connect_modes",
    "fit",
    "optimizer_named",
    "schedule_named",
    "sgd",
    "sgd_members",
    "spro",
]
