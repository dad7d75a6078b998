"""Train one run, or with -m a grid of runs: `python src/train.py -m head=seqpool,ga,seqattn heads=1,4,8`."""

import sys

import hydra
from omegaconf import DictConfig

from headsweep.entry import command_line, run_single


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(config: DictConfig) -> float:
    """Train the composed configuration."""
    return run_single(config)


if __name__ == "__main__":
    with command_line(sys.argv[1:]):
        main()
