"""Loss landscapes: what lies between modes, and around them."""

from lowland.landscape.align import Alignment, align, weight_matching

__all__ = ["Alignment", "align", "weight_matching"]
