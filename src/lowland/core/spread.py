"""Whether the iterates of a training run have moved enough to average over."""

from __future__ import annotations

import math

from lowland.warn import warn

# Of the weights' norm. On a network for digits the NLL of SWAG at scales 0 and 2 differs by 2% at
# a ratio of 8e-3 (the last quarter of a cosine), 0.5% at 5e-4 (AdamW at 2e-5), 0.01% at 9e-5 (the
# last twentieth of the cosine) and by 5e-8 of itself at 5e-9; float32 rounds weights at 6e-8.
LEAST = 1e-4


def relative_spread(spread: float, norm: float) -> float:
    """The spread over the norm of the weights; infinite about weights of 0.

    >>> relative_spread(1.0, 4.0), relative_spread(0.0, 0.0)
    (0.25, 0.0)
    """
    if norm:
        return spread / norm
    return math.inf if spread else 0.0


def warn_if_still(ratio: float, *, so: str) -> None:
    """Warns where iterates differ by next to nothing; `so` is what follows from that."""
    if ratio < LEAST:
        warn(
            f"the iterates hardly differ: their spread is {ratio:.1g} of the norm of their mean, "
            f"{so}. Collect while the learning rate is still high, as with ll.SWASchedule, or over "
            "more of the training.",
        )
