"""Training: trajectories by plain SGD, and shapes of low loss."""

from lowland.train.batches import Batches
from lowland.train.fit import fit
from lowland.train.grow import connect_modes, spro
from lowland.train.members import Members, MemberSGD
from lowland.train.named import optimizer_named, schedule_named
from lowland.train.options import TrainOptions
from lowland.train.sgd import sgd
from lowland.train.threads import best_threads
from lowland.train.together import sgd_members

__all__ = [
    "Batches",
    "MemberSGD",
    "Members",
    "TrainOptions",
    "best_threads",
    "connect_modes",
    "fit",
    "optimizer_named",
    "schedule_named",
    "sgd",
    "sgd_members",
    "spro",
]
