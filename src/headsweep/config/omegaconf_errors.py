"""OmegaConf's errors in one line: the key, what was got, what would be valid."""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException, UnsupportedInterpolationType

from headsweep.config.head import HEADS
from headsweep.config.launchers import LocalConfig
from headsweep.config.model import MODELS
from headsweep.config.schema import RunConfig
from headsweep.config.slurm import SlurmConfig
from headsweep.errors import ConfigError

# What OmegaConf says of a wrong type -> what a user needs to hear.
_WANTED = {
    "to Integer": "want a whole number",
    "to Float": "want a number",
    "to Boolean": "want true or false",
    "not a valid bool": "want true or false",
    "to Dict": "want keywords and their values, e.g. {drop_path_rate: 0.1}",
    "not a ListConfig": "want a list, e.g. [0.8,1.0]",
    "Incompatible value 'None'": "want a value, not null",
    "is not Optional": "want a value, not null",
}
_INTERPOLATION = "expected ${...} to name a key or a resolver that exists"


_REFERRED = re.compile(r"^While dereferencing interpolation '\$\{([a-z_.]+)\}': (Incompatible value 'None'.*)")


def explain(error: OmegaConfBaseException, config: DictConfig | None = None) -> ConfigError:
    """Say an OmegaConf error in one line that names the key; `config` is where its value is looked up."""
    reason = str(error).split("\n", 1)[0]
    key = error.full_key or str(error.key or "") or "the configuration"
    if referred := _REFERRED.search(reason):  # conf/train.yaml has hydra.run.dir=${paths.output}
        return ConfigError(referred[1], None, f"expected a value, found null ({referred[2]})")
    if isinstance(error, InterpolationResolutionError | UnsupportedInterpolationType):
        return ConfigError(key, None, f"{_INTERPOLATION} ({reason})")
    if "not in" in reason:
        return unknown_key(key)
    if "missing" in reason.lower():
        return ConfigError(key, None, "is missing; give it a value")
    try:
        got = OmegaConf.select(config, key) if config is not None and key else None
    except OmegaConfBaseException:
        got = None  # the value refers to something that is not there either
    wanted = next((want for sign, want in _WANTED.items() if sign in reason), reason[0].lower() + reason[1:])
    return ConfigError(key, got, wanted)


def unknown_key(key: str) -> ConfigError:
    """Say that `key` is none, and which was perhaps meant."""
    for choice, schemas in (("head", HEADS), ("model.family", MODELS)):
        section = choice.split(".")[0]
        owners = [f"{choice}={name}" for name, schema in schemas.items() if key in _keys(schema, f"{section}.")]
        if owners:
            grid = f"; in a grid of them give {key}='choice(VALUE)'" if len(owners) > 1 else ""
            return ConfigError(key, None, f"is an option of {' and '.join(owners)} alone{grid}")
    if key.startswith("model.options."):
        return ConfigError(key, None, f'give all options at once: "model.options={{{key.split(".", 2)[2]}: ...}}"')
    if key.startswith("hydra.launcher."):
        return ConfigError(key, None, f"is no key of this launcher; {_where_known(key.rpartition('.')[2])}")
    if key.startswith("hydra."):
        return ConfigError(key, None, "is no key of Hydra's; python src/train.py --cfg hydra shows them")
    if "/" in key:
        return ConfigError(key, None, f"a group is chosen in a file's `defaults`: `- override /{key}: NAME`")
    known = _all_keys()
    section, _, leaf = key.rpartition(".")
    close = difflib.get_close_matches(key, known, cutoff=0.6) or difflib.get_close_matches(leaf, known, cutoff=0.6)
    if close:
        return ConfigError(key, None, f"unknown key; did you mean {' or '.join(close)}?")
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    sections = sorted({name.split(".")[0] for name in known})
    return ConfigError(key, None, f"unknown key; known: {', '.join(siblings if section and siblings else sections)}")


def _where_known(name: str) -> str:
    """Return which launchers have a key of that name."""
    schemas = {"local": LocalConfig, "slurm": SlurmConfig}
    owners = [f"hydra/launcher={launcher}" for launcher, schema in schemas.items() if name in _keys(schema)]
    return f"{' and '.join(owners)} has it" if owners else "they are in conf/hydra/launcher/NAME.yaml"


def _all_keys() -> list[str]:
    """The dotted keys of every head and every family of models included."""
    variants = [("head.", schema) for schema in HEADS.values()] + [("model.", schema) for schema in MODELS.values()]
    return sorted({*_keys(RunConfig), *(key for prefix, schema in variants for key in _keys(schema, prefix))})


def _keys(schema: Any, prefix: str = "") -> list[str]:
    """The dotted keys of a dataclass and of those in it."""
    keys = []
    for name, hint in get_type_hints(schema).items():
        keys += _keys(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else [prefix + name]
    return keys
