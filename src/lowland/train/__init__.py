"""Training: trajectories by plain SGD, and shapes of low loss."""

from lowland.train.batches import Batches
from lowland.train.fit import fit
from lowland.train.grow import connect_modes, spro
from lowland.train.members import Members, MemberSGD
from lowland.train.sgd import sgd
from lowland.train.threads import best_threads
from lowland.train.together import sgd_members

__all__ = [
    "Batches",
    "MemberSGD",
    "Members",
    "best_threads",
    "connect_modes",
    "fit",
    "sgd",
    "sgd_members",
    "spro",
]
