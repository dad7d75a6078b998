"""One run over several processes: rank 0 goes the whole way, the others train with it and say nothing."""

from __future__ import annotations

from headsweep.config import RunConfig
from headsweep.launch.in_process import InProcess
from headsweep.launch.run_sweep import objectives, run_study
from headsweep.launch.signals import StopRequest
from headsweep.run.train_run import dismiss, follow
from headsweep.training.ranks import joined


def train_together(run: RunConfig) -> float:
    """As torchrun has started this process, lead or follow; the accuracy that a search would maximise, 0 if it follows.

    Raises:
        UserError: the batch cannot be shared, and what `run_study` raises.
        LostPeer: another process is gone.
        Interrupted: someone asked one of the processes to stop; the run has written its checkpoint.
    """
    with joined() as ranks, StopRequest(insistent=False) as request:  # torchrun passes on what the terminal sends, too
        run.check_ranks(ranks.count)
        if ranks.leads:
            value = objectives(run_study([run], InProcess(ranks, request)))[0]
            dismiss(ranks)
            return value
        follow(request.made, ranks)
        return 0.0
