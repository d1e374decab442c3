"""The sections of trainings: limits that depend on other keys, and lists of budgets."""

import pytest
from pydantic import ValidationError

from lowland.runs.training_sections import FGE, Average


def test_limits_depend_on_other_keys():
    with pytest.raises(ValidationError, match="low"):
        FGE(high=0.01, low=0.1)
    assert FGE(low=0.1).high is None  # that of the averaging, which is not known yet


def test_a_learning_rate_is_a_number_or_auto():
    assert Average().lr == "auto"
    assert Average(lr=0.1).lr == 0.1
    for lr in (0.0, "fast", float("inf")):
        with pytest.raises(ValidationError, match="lr"):
            Average(lr=lr)


def test_budgets_are_in_order_and_named_once():
    assert Average().budgets() == [1.0]
    assert Average(budget=[1.5, 1, 1.25]).budgets() == [1, 1.25, 1.5]
    with pytest.raises(ValidationError, match="each number once"):
        Average(budget=[1, 1])
