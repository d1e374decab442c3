"""A path that is stopped and goes on is one that was never stopped, bit by bit."""

from contextlib import suppress

import pytest
import torch

import lowland as ll
from lowland.errors import ConfigError
from tests.models import CASES, images


class Stop(Exception):
    """What ends a path in the middle."""


@pytest.mark.parametrize("options", [{}, {"strategy": "vmap", "chunk": 3}, {"chunk": 2}])
def test_a_path_that_was_stopped_goes_on_to_the_same_bits(tmp_path, options):
    case = next(case for case in CASES if case.name == "conv_bn")
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    curve = ll.Bezier.between(w, w + 1)
    test = images((4, 3))
    whole = ll.path(curve, surface, points=7, loader=test, **options)
    for at in range(1, 5):
        file = tmp_path / f"{at}.journal"
        count = 0

        def progress(done, total, at=at):
            nonlocal count
            count += 1
            if count == at:
                raise Stop

        stored = options | {"points": 7, "loader": test, "store": file}
        with suppress(Stop):
            ll.path(curve, surface, progress=progress, **stored)
        again = ll.path(curve, surface, **stored)
        assert torch.equal(again.loss, whole.loss)
        assert torch.equal(again.test_loss, whole.test_loss)
        assert again.metrics.keys() == whole.metrics.keys()
        assert torch.equal(again.metrics["test_ece"], whole.metrics["test_ece"])
    seen = []
    ll.path(curve, surface, progress=lambda done, total: seen.append(done), **stored)
    assert seen[0] == 7  # nothing is left to do
    with pytest.raises(ConfigError, match=r"other settings \(t: "):
        ll.path(curve, surface, **stored | {"points": 5})
