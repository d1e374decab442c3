"""Training: trajectories by plain SGD."""

from lowland.train.batches import Batches
from lowland.train.sgd import sgd
from lowland.train.threads import best_threads

__all__ = ["Batches", "best_threads", "sgd"]
