"""Distributions over weight vectors."""

from lowland.posteriors.base import Posterior
from lowland.posteriors.ensemble import Ensemble
from lowland.posteriors.gaussian import Gaussian
from lowland.posteriors.mixture import Mixture
from lowland.posteriors.point import PointMass
from lowland.posteriors.pushforward import Pushforward
from lowland.posteriors.uniform import Uniform

__all__ = ["Ensemble", "Gaussian", "Mixture", "PointMass", "Posterior", "Pushforward", "Uniform"]
