"""The processes of a job that train each of its runs together, one a GPU: the first leads, the others follow it."""

from __future__ import annotations

import os
import sys
import traceback
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from submitit.helpers import TorchDistributedEnvironment

from headsweep.errors import FailedRunsError, LostPeer, UserError
from headsweep.launch.in_process import InProcess
from headsweep.launch.launcher import Notify
from headsweep.launch.progress_bars import Display
from headsweep.launch.signals import StopRequest
from headsweep.run import train_run
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.ranks import Ranks, joined

# Exit code of a process whose job is to be put back into the queue: srun answers with the highest of all processes.
FROM_ANEW = 200
PORTS = range(20000, 32768)  # below those that Linux gives to clients


def lead(folders: Sequence[RunFolder], notify: Notify, request: StopRequest, threads: int) -> None:
    """Train the runs one after the other; if one fails, the job ends and starts anew.

    Raises:
        Interrupted: someone asked to stop; the run has written its checkpoint.
    """
    with _ranks(threads) as ranks, Display(len(folders), epoch_lines=len(folders) == 1) as display:
        InProcess(ranks, request).start(folders, display, notify)
        train_run.dismiss(ranks)


def follow(request: StopRequest, threads: int) -> None:
    """Train what the leader trains, until it has no more or all were asked to stop."""
    with _ranks(threads) as ranks:
        train_run.follow(request.made, ranks)


@contextmanager
def _ranks(threads: int) -> Iterator[Ranks]:
    """Meet the job's other processes. Where one fails, all of them must start anew."""
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    os.environ["MASTER_PORT"] = str(_port())
    torch.set_num_threads(threads)
    try:
        with joined() as ranks:
            yield ranks
    except LostPeer as error:
        _end(f"headsweep: {error}; the job goes on from the last checkpoint")
    except FailedRunsError as error:
        _end(f"headsweep: the run has failed on {error.reasons[0]}")
    except UserError as error:
        _end(f"headsweep: {error}")
    except Exception:  # the run's folder counts its failures
        _end(traceback.format_exc())


def _port() -> int:
    """Where the first process is met: the same for all of a job, another when it starts anew or on another cluster.

    submitit's is that of every cluster's job of the same number: two on one machine would train with one another.
    """
    told = os.environ
    start = (told["SLURM_CLUSTER_NAME"], told["SLURM_JOB_ID"], told.get("SLURM_RESTART_COUNT", "0"))
    return PORTS[zlib.crc32(" ".join(start).encode()) % len(PORTS)]


def _end(message: str) -> None:
    """Without the good order in which the GPUs' processes would wait for one another."""
    print(message, file=sys.stderr, flush=True)
    os._exit(FROM_ANEW)
