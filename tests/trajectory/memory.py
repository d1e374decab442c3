"""The memory of a process that collects SWAG, in bytes, as Linux counts it."""

import torch
from torch import nn

from lowland import SWAG, ParamLayout


def status(name):
    """A value of the process's status, such as VmHWM, its largest resident memory."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def peaks(size, rank, dtype):
    """The growth of the largest resident memory by updates, and by three draws after them."""
    torch.set_num_threads(2)
    model = nn.Linear(size, 1, bias=False)
    SWAG(ParamLayout(nn.Linear(300_000, 1, bias=False)), rank=3).update(torch.ones(300_000))
    layout = ParamLayout(model)
    before = status("VmHWM")
    swag = SWAG(layout, rank=rank, deviations_dtype=dtype)
    for _ in range(rank + 2):
        swag.update(model)
    updates = status("VmHWM") - before
    post = swag.posterior()
    for i in range(3):
        post.draw(i)
    return updates, status("VmHWM") - before


def growth(size, rank, path):
    """The growth of resident and of private memory by all updates but the first."""
    torch.set_num_threads(2)
    model = nn.Linear(size, 1, bias=False)
    layout = ParamLayout(model)
    SWAG(layout, rank=2, deviations_dtype=torch.bfloat16).update(model)
    swag = SWAG(layout, rank=rank, deviations_dtype=torch.bfloat16, path=path)
    swag.update(model)
    before = status("VmRSS"), status("RssAnon")
    for _ in range(rank - 1):
        swag.update(model)
    return status("VmRSS") - before[0], status("RssAnon") - before[1]
