"""Read the frozen configuration of a run, check it against its fingerprint; nothing is composed or resolved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from headsweep.config import RunConfig, parse
from headsweep.config.keys import all_keys, neutral_values
from headsweep.config.parsing import copier, typed
from headsweep.config.records.head_file import digest_of
from headsweep.config.traits import RESULT
from headsweep.config.yaml_files import load_yaml, read_yaml
from headsweep.errors import ConfigError, UserError
from headsweep.folders import CONF
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.packages import is_installed
from headsweep.text import message_of
from headsweep.tracking.addresses import moved_uri
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.typed_files import Damaged, read_bytes

_ABSENT = object()


@cache
def _where_runs_train() -> Callable[[], DictConfig]:
    """Return a function that makes the keys outside a run's identity, as in conf/, and neutral values of added keys."""
    today, found = load_yaml(CONF / "train.yaml"), OmegaConf.create()
    chosen = {
        group: choice for entry in today.defaults if not isinstance(entry, str) for group, choice in entry.items()
    }
    keys = [key for key, traits in all_keys().items() if RESULT not in traits]
    for section in chosen.keys() & {key.partition(".")[0] for key in keys}:
        today[section] = load_yaml(CONF / section / f"{chosen[section]}.yaml")
    for key in keys:
        if (value := OmegaConf.select(today, key, default=_ABSENT)) is not _ABSENT:
            OmegaConf.update(found, key, value)
    for key, value in neutral_values().items():
        OmegaConf.update(found, key, value)
    return copier(found)


def frozen(folder: RunFolder) -> RunConfig:
    """Return the configuration that a run was planned with.

    A key added to headsweep since takes its neutral value or, if it is outside the identity, its default in conf/.
    `paths.output` is the current location of the folder, which may have been moved.

    Raises:
        Damaged: the file was changed since, or is not a configuration of headsweep.
        UserError: the run was planned by a version of headsweep with other keys.
    """
    config = _frozen_file(folder)
    try:
        run = parse(OmegaConf.unsafe_merge(_where_runs_train()(), config))  # type: ignore[arg-type]
    except ConfigError as error:
        raise _other_version(folder, error) from error
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise _no_configuration(folder, error) from error
    planned, found = folder.record().fingerprint, fingerprint(run)
    if found != planned:
        reason = f"expected the configuration of fingerprint {planned}, found that of {found}: the file was changed"
        raise Damaged(folder.config, reason, f"remove {folder.path} and give the sweep's command again")
    output = OutputFolder.containing(folder.path.absolute()).path.resolve()
    tracking = replace(run.tracking, uri=moved_uri(run.tracking.uri, run.paths.output, output))
    return replace(run, paths=replace(run.paths, output=str(output)), tracking=tracking)


def check_frozen(folder: RunFolder) -> RunConfig:
    """As `frozen`, for a run that is to be trained again.

    Raises:
        UserError: as `frozen`; or the folder is damaged, has no configuration any more, or another run's name.
    """
    if damage := folder.damage():
        raise damage
    if not folder.config.exists():
        where = f"{folder.record().name} ({folder.path.name})"
        raise UserError(f"{where} has no frozen configuration any more; give the sweep's command again")
    run = frozen(folder)
    if fingerprint(run) != folder.path.name:
        raise UserError(f"{folder.path}: expected a folder named {fingerprint(run)}, as the run; rename it")
    return run


def frozen_values(folder: RunFolder) -> DictConfig:
    """Return the keys of a frozen configuration, typed by the schema, for the code version that planned it.

    Keys added to headsweep since are left out: that version rejects them.

    Raises:
        Damaged: as `frozen`.
        UserError: the file has keys that were removed from headsweep since.
    """
    config = _frozen_file(folder)
    try:
        values = typed(config)
    except ConfigError as error:
        raise _other_version(folder, error) from error
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise _no_configuration(folder, error) from error
    try:
        frozen(folder)  # for its fingerprint
    except Damaged:
        raise
    except UserError:
        pass  # it lacks a key added since
    plain = OmegaConf.to_container(values, enum_to_str=True)
    return OmegaConf.create(_common(plain, OmegaConf.to_container(config)))


def _common(values: Any, keys: Any) -> Any:
    """Return the part of nested `values` whose keys are also in `keys`."""
    if not (isinstance(values, dict) and isinstance(keys, dict)):
        return values
    return {key: _common(value, keys[key]) for key, value in values.items() if key in keys}


def _frozen_file(folder: RunFolder) -> DictConfig:
    """Return the content of config.yaml, which has plain values only.

    Raises:
        Damaged: it is not YAML, or has values that OmegaConf or Hydra would resolve.
    """
    try:
        config = read_yaml(folder.config_text())
        if not isinstance(config, DictConfig) or not config:
            raise ValueError("it has no keys")
        _check_plain(OmegaConf.to_container(config, resolve=False), "")
    except (YAMLError, OmegaConfBaseException, ValueError, TypeError, AssertionError, RecursionError) as error:
        raise _no_configuration(folder, error) from error
    if OmegaConf.select(config, "head.file") is not None:
        _use_copy(folder, config.head)
    if (checkpoint := OmegaConf.select(config, "model.checkpoint")) is not None:  # relative in a bundle
        config.model.checkpoint = str(OutputFolder.containing(folder.path.absolute()).path.resolve() / checkpoint)
    return config


def _use_copy(folder: RunFolder, head: DictConfig) -> None:
    """Replace the path of a head's file by that of the copy in the run's folder. Raises Damaged if it was changed."""
    fix = f"remove {folder.path} and give the sweep's command again"
    content = read_bytes(folder.head, fix)
    found = "none" if content is None else digest_of(str(folder.head))
    if found != head.digest:
        raise Damaged(folder.head, f"expected the content with digest {head.digest}, found {found}", fix)
    head.file = str(folder.head)


def _check_plain(value: Any, key: str) -> None:
    """Raise ValueError for interpolations, e.g. `${oc.env:HOME}`, and for keys of Hydra."""
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str) or not name.isidentifier() or name == "hydra":
                raise ValueError(f"{key}{name!r}: unknown key")
            _check_plain(item, f"{key}{name}.")
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, key)
    elif isinstance(value, str) and "${" in value:
        raise ValueError(f"{key.rstrip('.')}: expected a plain value, found an interpolation")


def _other_version(folder: RunFolder, error: ConfigError) -> UserError:
    planned = folder.record().packages
    if missing := [f"{name} {version}" for name, version in planned.items() if not is_installed(name)]:
        return UserError(f"{folder.path} was planned with {', '.join(missing)}, which is not installed; install it")
    return UserError(
        f"{folder.path} was planned by another version of headsweep ({error}); give the sweep's command again"
    )


def _no_configuration(folder: RunFolder, error: Exception) -> Damaged:
    reason = message_of(error)
    return Damaged(
        folder.config,
        f"expected a frozen configuration, found something else ({reason})",
        f"remove {folder.path} and give the sweep's command again",
    )
