"""Runs go through a model thousands of times: annotations are checked in the tests of models and heads."""

import pytest


@pytest.fixture(autouse=True)
def checked_elsewhere(shapes_unchecked: None) -> None:
    """The checks take a quarter of a run's CPU time."""
