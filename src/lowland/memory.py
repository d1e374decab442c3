"""Memory that a process frees and takes again at every step, kept instead of given back."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_TRIM, _MMAP = 2**31 - 1, 2**30  # bytes


def keep_freed_memory() -> bool:
    """Makes the C library keep large freed blocks; returns whether it could.

    A training step or a forward pass on a CPU frees its activations and takes as much again at the
    next. By default glibc returns such blocks to the system at once, which then clears every page
    again: 13,000 page faults and 15% of a step of PreResNet-20 at batch 128. Afterwards the process
    keeps the most memory that it has used. The command line calls this; in your own program call it
    once at the start. It works on Linux with glibc and does nothing elsewhere.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MMAP)) and bool(mallopt(_TRIM_THRESHOLD, _TRIM))
