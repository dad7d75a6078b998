"""Several true processes on this machine that train one run together, as torchrun starts them."""

import contextlib
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable

import torch

from headsweep.errors import LostPeer
from headsweep.run.train_run import dismiss, follow, train_folder
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.progress import Stop, Stopped
from headsweep.training.ranks import Ranks, joined

# autograd counts devices once, and starts threads for them that no fork survives: now, while no test has a fake one.
torch.zeros((), requires_grad=True).backward()

LOST = 143  # exit code of a rank that has lost another


def on_ranks(count: int, work: Callable[[Ranks], None], patience: float = 120) -> list[int]:
    """Do `work` on `count` ranks; their exit codes. One that is not done after `patience` seconds is killed."""
    context = multiprocessing.get_context("fork")  # all is imported already
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    processes = [context.Process(target=_be, args=(rank, count, port, work)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(patience)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def _be(rank: int, count: int, port: int, work: Callable[[Ranks], None]) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    try:
        with joined() as ranks:
            work(ranks)
    except LostPeer:
        os._exit(LOST)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def trained(folder: RunFolder, count: int, stop: Stop = lambda: False) -> list[int]:
    """Train the run on `count` ranks; the exit codes of their processes."""

    def work(ranks: Ranks) -> None:
        if ranks.leads:
            with contextlib.suppress(Stopped):
                train_folder(folder, lambda progress: None, stop, ranks=ranks)
                dismiss(ranks)
        else:
            follow(stop, ranks)

    return on_ranks(count, work)
