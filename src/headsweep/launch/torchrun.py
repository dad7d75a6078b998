"""One run over the processes that torchrun has started: rank 0 launches it, the others train it with rank 0."""

from __future__ import annotations

from headsweep.config import RunConfig
from headsweep.launch.conclude import objectives
from headsweep.launch.in_process import InProcess
from headsweep.launch.run_sweep import run_sweep
from headsweep.launch.signals import StopRequest
from headsweep.run.train_run import dismiss, follow
from headsweep.training.ranks import joined


def run_under_torchrun(run: RunConfig) -> float:
    """Lead or follow, by this process's rank; return the value that a search maximizes, 0 on all ranks but the first.

    Raises:
        UserError: the batch cannot be divided among the ranks, and what `run_sweep` raises.
        LostPeer: another process is gone.
        Interrupted: one of the processes was asked to stop; the run has written its checkpoint.
    """
    with joined() as ranks, StopRequest(insistent=False) as request:  # torchrun passes on what the terminal sends, too
        run.check_ranks(ranks.count)
        if ranks.leads:
            value = objectives(run_sweep([run], InProcess(ranks, request)))[0]
            dismiss(ranks)
            return value
        follow(request.made, ranks)
        return 0.0
