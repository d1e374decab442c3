"""Labels that do not overlap."""

import numpy as np

from lowland.plots.labels import spread


def test_labels_move_as_little_as_possible():
    assert spread([], gap=1.0) == []
    assert spread([3.0, 0.0], gap=1.0) == [3.0, 0.0]
    np.testing.assert_allclose(spread([5.0, 5.0, 5.0], gap=1.0), [4.0, 5.0, 6.0])
    positions = np.random.default_rng(0).uniform(0, 20, 15)
    apart = np.array(spread(list(positions), gap=1.0))
    assert np.diff(np.sort(apart)).min() > 1 - 1e-9
    assert (np.argsort(apart) == np.argsort(positions)).all()
    np.testing.assert_allclose(apart.mean(), positions.mean())


def test_labels_stay_within_limits_where_there_is_room():
    generator = np.random.default_rng(0)
    for _ in range(20):
        positions = generator.uniform(0, 20, 15) ** generator.uniform(0.1, 1)
        apart = np.array(spread(list(positions), gap=1.0, within=(0.0, 20.0)))
        assert np.diff(np.sort(apart)).min() > 1 - 1e-9
        assert 0.5 - 1e-9 < apart.min() < apart.max() < 19.5 + 1e-9
        assert (np.argsort(apart) == np.argsort(positions)).all()
    assert spread([0.0, 0.0], gap=1.0, within=(0.0, 1.0)) == [-0.5, 0.5]
