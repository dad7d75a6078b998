from dataclasses import dataclass, fields
from typing import Annotated

import pytest

from composing import compose_run
from headsweep.config.keys import all_keys, flat, flat_record, has_trait, keys_of, keys_with
from headsweep.config.records.head import head_options
from headsweep.config.records.model import model_options
from headsweep.config.traits import DATA, MEMORY, NOTHING, PACE, PLANNED, RESULT, SHARED, SUMMARY, USUAL
from headsweep.plan.past_costs import plain


@dataclass
class Inner:
    lr: float
    note: Annotated[str, NOTHING]


@dataclass
class Outer:
    steps: int
    plain: Inner
    marked: Annotated[Inner, PACE]


def test_a_key_without_traits_has_those_of_its_section():
    assert dict(keys_of(Outer)) == {
        "steps": USUAL,
        "plain.lr": USUAL,
        "plain.note": NOTHING,
        "marked.lr": PACE,
        "marked.note": NOTHING,
    }


@pytest.mark.parametrize("overrides", [[], ["model=timm", "model.options={depth: 2}", "head=ga"]])
def test_a_run_and_its_record_have_the_keys_of_the_schema(overrides):
    run = compose_run(*overrides)
    assert flat(run).keys() == flat_record(plain(run)).keys() <= all_keys().keys()


def test_variants_agree_in_the_traits_of_a_key():
    for section, schemas in (("head", head_options()), ("model", model_options())):
        for schema in schemas.values():
            for key, traits in keys_of(schema, f"{section}."):
                assert all_keys()[key] == traits, key


def test_what_a_key_affects_is_consistent():
    for key, traits in all_keys().items():
        assert RESULT in traits or not traits & (DATA | SUMMARY | PLANNED), key
        assert SHARED not in traits or RESULT not in traits, key


def test_a_section_is_its_name_and_an_unknown_key_is_like_its_section():
    assert has_trait("dataset", DATA) and has_trait("dataset.name", DATA) and not has_trait("dataset.mean", DATA)
    assert has_trait("model.options.drop_rate", RESULT) and has_trait("an_old_key", RESULT)
    assert not has_trait("tracking.an_old_key", RESULT)


def test_keys_keep_the_order_of_the_schema():
    summary = keys_with(SUMMARY)
    assert summary[:3] == ["model.name", "head.name", "dataset.name"]
    order = [field.name for field in fields(type(compose_run()))]
    sections = [order.index(key.partition(".")[0]) for key in summary]
    assert sections == sorted(sections)


def test_seed_and_learning_rate_change_neither_pace_nor_memory():
    for key in ("seed", "optimizer.lr", "schedule.warmup"):
        assert has_trait(key, RESULT) and not has_trait(key, PACE) and not has_trait(key, MEMORY)
