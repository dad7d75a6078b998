"""A value is compared with a configuration in one way, whatever their sources."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from headsweep.config.values import matches, read_words
from headsweep.errors import UserError

SAME = [
    (0.001, ["1e-3", "0.001", "0.0010", "1.0e-3"]),
    (1, ["1", "1.0", "1e0"]),
    (16.0, ["16", "1.6e1"]),
    (-0.8, ["-0.8"]),
    (10**12, ["1000000000000", "1e12"]),
    (None, ["null", "None"]),
    (True, ["true", "True"]),
    ("20 epochs", ["20 epochs", "'20 epochs'", '"20 epochs"']),
    ([0.8, 1.0], ["[0.8,1.0]", "[0.80, 1]"]),
    (OmegaConf.create([0.8, 1.0]), ["[0.8,1]"]),
    ({"drop": 0.1}, ["{drop:0.1}", "{drop: 1e-1}"]),
    ("ga", ["ga", "'ga'"]),
    ("größe/ü", ["größe/ü"]),
    ("50%&{~^$#\\", ["50%&{~^$#\\"]),
]


@pytest.mark.parametrize(("value", "written"), SAME, ids=lambda item: str(item))
def test_a_value_matches_every_spelling_of_it_and_its_own_text(value, written):
    for words in (*written, str(value)):  # MLflow keeps the text of a value
        assert matches(words, value)
        assert matches(value, words)
    assert matches(value, value)
    for other, _ in SAME:
        assert other == value or not matches(other, value)


@pytest.mark.parametrize(
    ("wanted", "value"),
    [("none", None), ("1", True), ("0", None), ("0", False), ("", None), ("1,2", 1), ("ga", "gap"), ("[1]", 1)],
)
def test_values_that_only_look_alike_do_not_match(wanted, value):
    assert not matches(wanted, value)


def test_words_are_separated_by_the_commas_and_whitespace_outside_values():
    assert read_words(["head=seqpool,heads=1", "duration=20 epochs optimizer.lr=1e-3,"]) == {
        "head": "seqpool",
        "heads": "1",
        "duration": "20 epochs",
        "optimizer.lr": "1e-3",
    }
    assert read_words(["augmentation.scale=[0.8,1.0]"]) == {"augmentation.scale": "[0.8,1.0]"}
    assert read_words(["variant==cmd(),heads=1", "head=a=b"]) == {"variant": "=cmd()", "heads": "1", "head": "a=b"}
    assert read_words([]) == {}


@pytest.mark.parametrize("word", ["", "ga", "head=", "=ga", "heads<2", "head=ga heads!=1"])
def test_anything_but_key_value_is_refused(word):
    with pytest.raises(UserError, match=r"--baseline '.*': expected KEY=VALUE"):
        read_words([word], "--baseline ")
