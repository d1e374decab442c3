"""Steps and epochs of a run's trainings."""

import pytest

from lowland.errors import ConfigError
from lowland.runs.budget import Budget, last_tenth
from lowland.trajectory import Every


def budget(epochs=8, start=0.75, every=10):
    return Budget(10, epochs, start, Every(every, total=10 * epochs, start=start), cycle=4)


def test_iterates_are_counted_to_any_multiple_of_sgds_epochs():
    """Sixty to eighty steps, one in ten: 60, 70, 80; and to 120 steps of one and a half budgets."""
    assert [budget().stored(share) for share in (1, 1.25, 1.5)] == [3, 5, 7]
    picked = [s for s in range(1, 121) if budget().iterates.picks(s)]
    assert picked == [60, 70, 80, 90, 100, 110, 120]
    assert budget().before_averaging() == 0.75
    assert budget(every=25).before_averaging() == 75 / 80


@pytest.mark.parametrize(
    ("epochs", "start", "expected"), [(4, 0.75, 3), (50, 0.75, 37), (100, 0.55, 55), (2, 0.5, 1)]
)
def test_a_prefix_ends_with_the_last_epoch_before_averaging(epochs, start, expected):
    assert budget(epochs, start).prefix_epochs == expected


def test_averaging_takes_a_tenth_of_the_epochs_at_most():
    """And more than a twentieth; what is left of 15% is for trials."""
    for epochs in range(10, 60):
        start = last_tenth(epochs)
        assert 0.05 < 1 - start <= 0.1000001, epochs
        assert budget(epochs, start).prefix_epochs == epochs - epochs // 10


@pytest.mark.parametrize(
    ("epochs", "start", "words"),
    [(1, 0.75, "0.75 of 1 epochs leaves no whole epoch .* before it; train longer, or"),
     (4, 0.1, "0.1 of 4 epochs leaves no whole epoch for the training"),
     (4, 0.9999999, "no whole epoch for averaging; train longer, start earlier, or name")],
)  # fmt: skip
def test_a_start_that_leaves_no_epoch_is_refused(epochs, start, words):
    with pytest.raises(ConfigError, match=f"average.start: .*{words}"):
        _ = budget(epochs, start).prefix_epochs
