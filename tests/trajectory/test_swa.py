"""SWA against the mean of its iterates, with broken twins."""

import pytest
import torch

from lowland import SWA
from tests.trajectory.iterates import collected, offline, random_walk


def check_swa(kind):
    """Izmailov et al. 2018: every model counts once."""
    swa = collected(kind, torch.tensor([[1.0], [2.0], [3.0], [6.0]]))
    assert swa.mean.item() == pytest.approx(3, rel=1e-6)
    iterates = random_walk(150, 7)
    assert collected(kind, iterates).mean.numpy() == pytest.approx(
        offline(iterates, 0)[0], rel=1e-5, abs=1e-6
    )


class TorchUncertaintySWA(SWA):
    """The second model is averaged with weight 1/2 twice: 1, 2, 3, 6 gives 2.6."""

    def _absorb(self, pieces):
        for w, mean in self._parts(pieces, self._mean):
            mean.lerp_(w, 1 / min(self.count, 3))


class StartsWithTheSum(SWA):
    """The mean starts at w0 and w0 is added to it."""

    def _absorb(self, pieces):
        for w, mean in self._parts(pieces, self._mean):
            if self.count == 1:
                mean.copy_(w)
            mean.add_(w / self.count)


def test_swa_counts_every_model_once():
    check_swa(SWA)


@pytest.mark.parametrize("twin", [TorchUncertaintySWA, StartsWithTheSum])
def test_the_check_of_swa_fails_broken_ones(twin):
    with pytest.raises(AssertionError):
        check_swa(twin)
