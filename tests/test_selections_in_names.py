"""A selection of cells is told from a name and from an MLflow filter."""

from __future__ import annotations

import pytest

from headsweep.errors import UserError
from headsweep.selection import is_selection, refuse_selection


@pytest.mark.parametrize(
    "text", ["head=ga", "heads<2", "heads<=2", "head=ga heads=2", "optimizer.lr>0.1", "heads != 2"]
)
def test_a_selection_is_refused_with_what_is_expected(text: str):
    with pytest.raises(UserError, match=r": expected a run, found a selection of cells; give one$"):
        refuse_selection(text, "a run", "give one")


@pytest.mark.parametrize(
    "text",
    [
        "params.`head.name` = 'ga'",
        "dataset.name = 'digits'",
        'tags.note != "x"',
        "metrics.val_loss < 2",
        "attributes.start_time>100",
        "start_time > 100",
        "params.heads = 4",  # MLflow reports that the quotes are missing
        "digits-1",
        "latest",
        "ga1-cct_2_3x2-digits-lr=0.1-seed0",
    ],
)
def test_names_and_filters_are_no_selections(text: str):
    assert not is_selection(text)
