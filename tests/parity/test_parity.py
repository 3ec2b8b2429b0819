"""Outputs and intermediates of every reference case in PERCEIVER_GOLDENS (default: those in tests/goldens)."""

import numpy as np
import pytest

from tests.models import CARRIED, GOLDENS
from tests.parity.comparison import Comparison
from tests.parity.suite import FAMILIES, found, judge


@pytest.mark.parametrize(("family", "case"), found(GOLDENS))
def test_case(family, case):
    assert not judge(GOLDENS, family, case).failures


def test_the_carried_cases_are_of_every_family():
    assert {family for family, _ in found(CARRIED)} == set(FAMILIES)


@pytest.mark.parametrize("ours", [np.full((2, 2), 1.0 + 3e-5), np.array([[1.0, 1.0], [1.0, np.nan]])])
def test_a_difference_is_seen(ours):
    comparison = Comparison("x", ours, np.ones((2, 2)))
    assert not comparison.error <= comparison.tolerance


def test_another_shape_is_no_match():
    with pytest.raises(AssertionError, match="shape"):
        _ = Comparison("x", np.ones((2, 1)), np.ones((2, 2))).error
