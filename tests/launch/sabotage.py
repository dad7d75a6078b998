"""`python src/train.py`, but runs of some seeds misbehave in their second step: a test's stand-in for bad luck."""

import os
import signal
import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from headsweep.config import PROJECT_ROOT
from headsweep.entry import run_single
from headsweep.exit_codes import one_line_errors


def misbehave(seed: int, folder: Path) -> None:
    if seed == 1:
        raise RuntimeError("seed 1 is unlucky")
    if seed == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 4:
        time.sleep(1e6)
    if seed == 5 and not (folder / "was-here").exists():  # once, as where a neighbour takes the memory
        (folder / "was-here").touch()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    if seed == 6:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        time.sleep(1e6)


SLOW = 8  # a seed whose steps take so long that a test can signal its run where it wants to
SECONDS = 0.1


@hydra.main(version_base="1.3", config_path=str(PROJECT_ROOT / "conf"), config_name="train")
def main(config: DictConfig) -> float:
    return run_single(config)


def install() -> None:
    """Misbehave; a file `stepped` in a run's folder shows that it has taken a step, of a slow run in this process."""
    take_step = Training._train_step

    def _train_step(self, batch):
        if self.state.step == 1:
            (self.folder.path / "stepped").touch()
            misbehave(self.run.seed, self.folder.path)
        if self.run.seed == SLOW:
            (self.folder.path / "stepped").touch()
            time.sleep(SECONDS)
        return take_step(self, batch)

    Training._train_step = _train_step


is_launcher = __name__ == "__main__" and "-m" in sys.argv
if not is_launcher and (__name__ == "__main__" or "headsweep.training.loop" in sys.modules):  # not for a light check
    import torch

    from headsweep.training.loop import Training

    install()
if __name__ == "__main__":
    with one_line_errors():
        main()
