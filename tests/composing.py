"""What many tests need: a composed configuration."""

from hydra import compose, initialize_config_dir

from headsweep.config import PROJECT_ROOT, RunConfig, parse


def compose_run(*overrides: str) -> RunConfig:
    """The configuration of `python src/train.py OVERRIDES`."""
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        return parse(compose("train", overrides=list(overrides)))
