"""The keys of the launcher `slurm` for runs over several GPUs and nodes."""

import pytest
from omegaconf import OmegaConf

from headsweep.config import PROJECT_ROOT
from headsweep.config.launcher.launchers import parse_launcher
from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.errors import ConfigError


def parsed(**changes) -> SlurmConfig:
    values = OmegaConf.to_container(OmegaConf.load(PROJECT_ROOT / "conf/hydra/launcher/slurm.yaml"))
    return parse_launcher(SlurmConfig, values | changes)


@pytest.mark.parametrize(
    ("changes", "ranks"),
    [
        ({"gpus": 8}, 1),
        ({"gpus": 8, "distributed": True}, 8),
        ({"gpus": 8, "nodes": 2, "distributed": True}, 16),
        ({"gpus": 0, "nodes": 2, "distributed": True}, 2),
    ],
    ids=str,
)
def test_a_distributed_run_has_a_process_for_each_gpu_of_its_job(changes, ranks):
    assert parsed(**changes).ranks == ranks


def test_several_nodes_want_distributed_runs():
    with pytest.raises(ConfigError, match=r"nodes=2: expected 1 unless hydra.launcher.distributed=true"):
        parsed(nodes=2)


def test_a_distributed_job_has_no_slots():
    with pytest.raises(ConfigError, match=r"slots=4: expected null with hydra.launcher.distributed=true"):
        parsed(distributed=True, slots=4)
