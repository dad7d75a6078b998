"""The processes of a job that train each of its runs together, one for each GPU: rank 0 leads, the others follow."""

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
from headsweep.launch.slurm.requeue import LOST_PEER, REQUEUE
from headsweep.run import train_run
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.ranks import Ranks, joined

PORTS = range(20000, 32768)  # below those that Linux gives to clients


def lead(folders: Sequence[RunFolder], notify: Notify, request: StopRequest, threads: int) -> None:
    """Train the runs one after the other; if one fails, the job ends and is requeued.

    Raises:
        Interrupted: the job was asked to stop; the run has written its checkpoint.
    """
    with _ranks(threads) as ranks, Display(len(folders), epoch_lines=len(folders) == 1) as display:
        InProcess(ranks, request).start(folders, display, notify)
        train_run.dismiss(ranks)


def follow(request: StopRequest, threads: int) -> None:
    """Train what rank 0 trains, until it has no more runs or the job was asked to stop."""
    with _ranks(threads) as ranks:
        train_run.follow(request.made, ranks)


@contextmanager
def _ranks(threads: int) -> Iterator[Ranks]:
    """Connect the job's processes. If one fails, all of them must start again."""
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    os.environ["MASTER_PORT"] = str(_port())
    torch.set_num_threads(threads)
    try:
        with joined() as ranks:
            yield ranks
    except LostPeer as error:
        _end(f"headsweep: {error}; the job goes on from the last checkpoint", LOST_PEER)
    except FailedRunsError as error:
        _end(f"headsweep: the run has failed on {error.reasons[0]}")
    except UserError as error:
        _end(f"headsweep: {error}")
    except Exception:  # the run's folder counts its failures
        _end(traceback.format_exc())


def _port() -> int:
    """Return the port of rank 0: the same for all of a job, another one after a requeue and on another cluster.

    submitit derives it from the job's number alone: jobs of two clusters on one machine would train together.
    """
    environment = os.environ
    start = environment["SLURM_CLUSTER_NAME"], environment["SLURM_JOB_ID"], environment.get("SLURM_RESTART_COUNT", "0")
    return PORTS[zlib.crc32(" ".join(start).encode()) % len(PORTS)]


def _end(message: str, code: int = REQUEUE) -> None:
    """End this process at once: an orderly exit would wait for the other ranks."""
    print(message, file=sys.stderr, flush=True)
    os._exit(code)
