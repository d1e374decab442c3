"""How a training run went."""

from tests.records.examples import EXAMPLES


def test_seconds_of_all_sittings_add_up() -> None:
    assert EXAMPLES["TrainingLog"][0].seconds == 3.5
