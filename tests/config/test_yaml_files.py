"""YAML that libyaml parses is what OmegaConf reads."""

import pytest
from omegaconf import OmegaConf
from yaml import YAMLError

from headsweep.config import PROJECT_ROOT
from headsweep.config.yaml_files import load_yaml, read_yaml

TEXTS = [
    "",
    "text",
    "- 1\n- [2, {a: b}]",
    "{lr: 1e-3, date: 2020-01-01, octal: 08, clock: 1:30, off: off, none: null, big: 1_000, inf: -.inf, 1: 2}",
    "a: &x [1, 2]\nb: *x",
    "a: ${b}\nb: |\n  lines\n  of text",
]


def test_files_of_the_project_are_read_as_omegaconf_does():
    for path in sorted((PROJECT_ROOT / "conf").rglob("*.yaml"))[::5]:
        assert load_yaml(path) == OmegaConf.load(path)


@pytest.mark.parametrize("text", TEXTS)
def test_values_have_the_types_that_omegaconf_gives(text):
    read, expected = read_yaml(text), OmegaConf.create(text)
    assert OmegaConf.to_container(read) == OmegaConf.to_container(expected)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: [", "[" * 9_000, "a: !!python/object/apply:os.system [ls]", "\0"])
def test_what_omegaconf_refuses_is_refused(text):
    with pytest.raises(YAMLError):
        read_yaml(text)
