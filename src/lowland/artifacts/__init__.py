"""Artifacts: what a run folder holds, built once, resumed, checked and loaded by one mechanism."""

from lowland.artifacts.artifact import Artifact, Inputs, Settings, Source
from lowland.artifacts.checkpoint import Checkpoint
from lowland.artifacts.graph import Graph
from lowland.artifacts.lease import HeldError, Owner
from lowland.artifacts.status import Status

__all__ = [
    "Artifact",
    "Checkpoint",
    "Graph",
    "HeldError",
    "Inputs",
    "Owner",
    "Settings",
    "Source",
    "Status",
]
