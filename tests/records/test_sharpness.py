from tests.records.examples import EXAMPLES


def test_the_number_of_a_record_is_that_at_the_first_radius():
    _, plain = EXAMPLES["SharpnessResult"]
    assert float(plain) == 1.0
    assert plain.invariant is None


def test_distances_are_widths_times_lengths():
    (record,) = EXAMPLES["WidthsResult"]
    record.width[0] = 0.25
    assert record.distance.tolist() == [0.5]
