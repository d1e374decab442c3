"""Permutations of hidden units that bring two networks into one basin, for any module."""

from lowland.alignment.align import Alignment, align, weight_matching

__all__ = ["Alignment", "align", "weight_matching"]
