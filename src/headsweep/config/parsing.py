"""The door: a composed DictConfig becomes a checked `RunConfig` once; below it nothing knows of OmegaConf."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headsweep.config.explaining import explain
from headsweep.config.head import HEADS
from headsweep.config.schema import RunConfig
from headsweep.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parents[3]
OmegaConf.register_new_resolver("project_root", lambda: str(PROJECT_ROOT), replace=True)


def parse(config: DictConfig) -> RunConfig:
    """Turn a composed configuration into a checked `RunConfig`.

    Raises:
        ConfigError: a key is unknown or missing, a value has the wrong type, or two values exclude each other.
    """
    plain = {key: config[key] for key in config if key != "hydra"}
    head_name = OmegaConf.select(config, "head.name")
    if head_name not in HEADS:
        raise ConfigError("head", head_name, f"unknown head; known: {', '.join(sorted(HEADS))}")
    schema = OmegaConf.structured(RunConfig)
    schema.head = OmegaConf.structured(HEADS[head_name])
    try:
        run = OmegaConf.to_object(OmegaConf.merge(schema, plain))
    except OmegaConfBaseException as error:
        raise explain(error, config) from error
    assert isinstance(run, RunConfig)
    run.paths.data, run.paths.output = (str(Path(p).expanduser().resolve()) for p in (run.paths.data, run.paths.output))
    if run.dataset.root is not None:
        run.dataset.root = str(Path(run.dataset.root).expanduser().resolve())
    return run
