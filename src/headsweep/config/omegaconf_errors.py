"""OmegaConf's errors as ConfigError: one line with the key, its value and what is expected."""

from __future__ import annotations

import difflib
import re

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException, UnsupportedInterpolationType

from headsweep.config.keys import all_keys, keys_of
from headsweep.config.launcher.launchers import LocalConfig
from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.config.records.head import head_options
from headsweep.config.records.model import model_options
from headsweep.config.study_keys import KEYS, SWEEPER
from headsweep.errors import ConfigError
from headsweep.folders import TRAIN

# Part of OmegaConf's message on a wrong type -> what is expected.
_EXPECTED = {
    "to Integer": "expected an integer",
    "to Float": "expected a number",
    "to Boolean": "expected true or false",
    "not a valid bool": "expected true or false",
    "to Dict": "expected keywords and their values, e.g. {drop_path_rate: 0.1}",
    "not a ListConfig": "expected a list, e.g. [0.8,1.0]",
    "Incompatible value 'None'": "expected a value, not null",
    "is not Optional": "expected a value, not null",
}
_INTERPOLATION = "expected ${...} to name a key or a resolver that exists"


_REFERRED = re.compile(r"^While dereferencing interpolation '\$\{([a-z_.]+)\}': (Incompatible value 'None'.*)")


def as_config_error(error: OmegaConfBaseException, config: DictConfig | None = None) -> ConfigError:
    """Return the ConfigError of an OmegaConf error; the value is looked up in `config`."""
    reason = str(error).split("\n", 1)[0]
    key = error.full_key or str(error.key or "") or "the configuration"
    if referred := _REFERRED.search(reason):  # conf/train.yaml has hydra.run.dir=${paths.output}
        return ConfigError(referred[1], None, f"expected a value, found null ({referred[2]})")
    if isinstance(error, InterpolationResolutionError | UnsupportedInterpolationType):
        return ConfigError(key, None, f"{_INTERPOLATION} ({reason})")
    if "not in" in reason:
        return unknown_key(key)
    if "missing" in reason.lower():
        return ConfigError(key, None, "expected a value, found none")
    try:
        got = OmegaConf.select(config, key) if config is not None and key else None
    except OmegaConfBaseException:
        got = None  # the value refers to a missing key
    expected = next((text for sign, text in _EXPECTED.items() if sign in reason), reason[0].lower() + reason[1:])
    return ConfigError(key, got, expected)


def unknown_key(key: str) -> ConfigError:
    """Return the error of an unknown key, with the keys that were probably meant."""
    for choice, schemas in (("head", head_options()), ("model.family", model_options())):
        section = choice.split(".")[0]
        owners = [f"{choice}={name}" for name, schema in schemas.items() if key in dict(keys_of(schema, f"{section}."))]
        if owners:
            grid = f"; in a grid of them give {key}='choice(VALUE)'" if len(owners) > 1 else ""
            return ConfigError(key, None, f"is an option of {' and '.join(owners)} alone{grid}")
    if key.startswith("model.options."):
        return ConfigError(key, None, f'give all options at once: "model.options={{{key.split(".", 2)[2]}: ...}}"')
    if key.startswith("hydra.launcher."):
        return ConfigError(key, None, f"unknown key of this launcher; {_where_known(key.rpartition('.')[2])}")
    section, _, leaf = key.rpartition(".")
    if section == SWEEPER and (close := difflib.get_close_matches(leaf, KEYS, n=1)):
        return ConfigError(key, None, f"unknown key; did you mean {SWEEPER}.{close[0]}?")
    if key.startswith("hydra."):
        return ConfigError(key, None, f"unknown key of Hydra; {' '.join(TRAIN)} --cfg hydra prints them")
    if "/" in key:
        return ConfigError(key, None, f"a file chooses a group in its `defaults`: `- override /{key}: NAME`")
    keys = all_keys()
    known = sorted([*keys, *(name.removesuffix(".name") for name in keys if name.endswith(".name"))])
    close = difflib.get_close_matches(key, known, cutoff=0.6) or difflib.get_close_matches(leaf, known, cutoff=0.6)
    if close:
        return ConfigError(key, None, f"unknown key; did you mean {' or '.join(close)}?")
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    sections = sorted({name.split(".")[0] for name in known})
    return ConfigError(key, None, f"unknown key; known: {', '.join(siblings if section and siblings else sections)}")


def _where_known(name: str) -> str:
    """Name the launchers that have a key of that name."""
    schemas = {"local": LocalConfig, "slurm": SlurmConfig}
    owners = [f"hydra/launcher={launcher}" for launcher, schema in schemas.items() if name in dict(keys_of(schema))]
    return f"{' and '.join(owners)} has it" if owners else "they are in conf/hydra/launcher/NAME.yaml"
