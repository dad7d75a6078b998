"""Train a run from its folder to its result: the only place that combines data, model and training."""

from __future__ import annotations

import traceback
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from headsweep.config import CompactConfig, Precision, RunConfig, spec_of
from headsweep.data.datasets import Splits, open_splits, open_views
from headsweep.data.loader import EvalLoader, Share, TrainLoader
from headsweep.data.locate import count_images
from headsweep.data.token_folder import TokenFolder, check_room
from headsweep.errors import FailedRunsError, LostPeer, UserError
from headsweep.heads import FittedHead, Head
from headsweep.models.build import count_cost, model_of
from headsweep.models.compact.packed_attention import check_device
from headsweep.models.frozen import FrozenBackbone, Probe
from headsweep.models.meta_device import on_meta_device
from headsweep.models.user_code import check_pooled, running, user_backbone, user_head
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.frozen import frozen
from headsweep.run import precision as precisions
from headsweep.run.frozen_batches import TokenEvalLoader, TokenTrainLoader
from headsweep.run.stored_tokens import new_record, stored_tokens, with_token_costs
from headsweep.run.token_streams import Loaders, TokenStreams
from headsweep.tracking.cost import RunCost
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder, TakenOver
from headsweep.training.device import autocast, choose_device
from headsweep.training.fitting import Fitting
from headsweep.training.in_steps import InSteps, to_the_end
from headsweep.training.loop import Training
from headsweep.training.optimization import build_optimizer
from headsweep.training.progress import Busy, Progress, Stop, Stopped, Watcher
from headsweep.training.ranks import ALONE, Ranks


def train_folder(
    folder: RunFolder,
    watch: Watcher,
    stop: Stop = lambda: False,
    until: int | None = None,
    ranks: Ranks = ALONE,
    device: str | None = None,
) -> None:
    """Train the run of `folder` to its end, as `train_in_steps`."""
    to_the_end(train_in_steps(folder, watch, stop, until, ranks, device))


def train_in_steps(
    folder: RunFolder,
    watch: Watcher,
    stop: Stop = lambda: False,
    until: int | None = None,
    ranks: Ranks = ALONE,
    device: str | None = None,
    streams: TokenStreams | None = None,
) -> InSteps[None]:
    """Train the run of `folder` to its end, from its frozen configuration; a finished run is left alone.

    A failure is written to the folder and raised. Rank 0 calls this, the other ranks call `follow`. A `device` takes
    the place of the configuration's. `streams` are those of the other runs of this process.

    Raises:
        Busy: another process trains the same run.
        Stopped: `stop` returned true, or epoch `until` is done; the same call resumes.
        LostPeer: another rank is gone.
        FailedRunsError: the run failed on another rank.
    """
    with _held(folder.lock()):
        if folder.result() is not None:
            return
        folder.claim()
        ranks.gather(folder.path)
        yield from _tried(folder, watch, stop, until, ranks, device, streams)


def follow(stop: Stop, ranks: Ranks) -> None:
    """Train the runs that rank 0 trains, until it calls `dismiss` or a stop is requested.

    Raises:
        LostPeer, FailedRunsError: as `train_folder`.
    """
    path: Path | None
    with suppress(Stopped):
        while (path := ranks.gather(None)[0]) is not None:
            to_the_end(_tried(RunFolder(path), lambda progress: None, stop, None, ranks))


def dismiss(ranks: Ranks) -> None:
    """Release the ranks in `follow`."""
    ranks.gather(None)


def _tried(
    folder: RunFolder,
    watch: Watcher,
    stop: Stop,
    until: int | None,
    ranks: Ranks,
    device: str | None = None,
    streams: TokenStreams | None = None,
) -> InSteps[None]:
    """Train, and write the result or the failure."""
    try:
        run = frozen(folder)
        run = replace(run, device=device) if device else run
        if ranks.leads and not folder.record().cost:  # planned on a machine without torch
            folder.write_cost(preflight(run))
        precision = precisions.begin(run, folder, ranks.device(choose_device(run.device)), ranks)
        training, backbone = _training(run, folder, precision, watch, stop, until, ranks, streams)
        result = yield from training.in_steps()
        if backbone is not None:
            backbone.check_unchanged()
        if ranks.leads:
            folder.check_claim()
            folder.finish(with_token_costs(run, result) if run.has_stored_tokens else result)
    except Stopped:
        raise
    except LostPeer as error:
        if reason := ranks.failure():
            raise FailedRunsError(1, [reason]) from error
        raise
    except TakenOver:
        raise (LostPeer("another job took the run over") if ranks.count > 1 else Busy) from None
    except Exception as error:
        raise _recorded(folder, error, ranks) from error


def _held(lock: FileLock) -> AbstractContextManager[object]:
    try:
        return lock.acquire(timeout=1)  # readers hold the lock for an instant
    except Timeout:
        raise Busy from None


def _recorded(folder: RunFolder, error: Exception, ranks: Ranks) -> Exception:
    """Write the failure to the folder, if no other rank has, and return the error to raise."""
    if isinstance(error, OSError):
        error = UserError(not_usable(folder, error))
    reason = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error))
    if ranks.is_first_to_fail(reason):
        with suppress(OSError):  # the disk may be full
            folder.fail(reason)
    return error


def not_usable(folder: RunFolder, error: OSError) -> str:
    """Return a line about a file that a run cannot use; its folder, if the error names no file."""
    return f"{error.filename or folder.path}: {error.strerror or error}; fix this and give the command again"


def preflight(run: RunConfig) -> RunCost:
    """Build the run's model and optimizer on the meta device, without memory, and count parameters and FLOPs.

    Raises:
        UserError: the run cannot be built, this machine lacks its device, or the disk is too small for its tokens.
    """
    device = choose_device(run.device)
    if run.device != "auto":  # which the run may find elsewhere
        _check_kernel(run, device)
    with on_meta_device():
        model = model_of(run)
    if not isinstance(model.head, FittedHead):
        build_optimizer(Probe(model) if run.backbone.is_frozen else model, run.optimizer)
    head = user_head(run.head)
    assert isinstance(model.head, Head)
    check_pooled(head, model.head)
    with running(head, user_backbone(run.model)):
        counted = asdict(count_cost(model, run.dataset.image_size, run.dataset.channels))
    if not run.has_stored_tokens:
        return counted
    record = new_record(run, model.backbone, {"train": count_images(run.dataset)})
    folder = TokenFolder.of(run)
    if run.debug.train_images is None:  # else few of the tokens are computed
        check_room(folder.path, record.bytes - folder.held())
    return {**counted, "token_bytes": record.row_bytes}


def check_here(run: RunConfig) -> None:
    """Raise ConfigError if a run that is trained on this machine could not use its kernels."""
    _check_kernel(run, choose_device(run.device))


def _check_kernel(run: RunConfig, device: torch.device) -> None:
    if isinstance(run.model, CompactConfig):
        check_device(run.model.attention_kernel, device)


def trial(run: RunConfig) -> Training | Fitting:
    """Return the training of a run to measure its steps; its folder is not used.

    Raises:
        UserError: the run cannot be built, or its data is missing.
    """
    folder = RunFolder(OutputFolder(Path(run.paths.output)).runs / fingerprint(run))
    precision = precisions.precision_of(run, folder, choose_device(run.device))
    training, _ = _training(run, folder, precision, lambda progress: None, lambda: False, None, ALONE)
    return training


def _training(
    run: RunConfig,
    folder: RunFolder,
    precision: Precision,
    watch: Watcher,
    stop: Stop,
    until: int | None,
    ranks: Ranks,
    streams: TokenStreams | None = None,
) -> tuple[Training | Fitting, FrozenBackbone | None]:
    """Return the training of a run, and the backbone if it computes tokens in each step."""
    device = ranks.device(choose_device(run.device))
    _check_kernel(run, device)
    used = replace(run, precision=precision)
    share = Share(ranks.rank, ranks.count, run.accumulation)
    model = model_of(run, only_head=run.has_stored_tokens)
    if run.has_stored_tokens:
        probe, heartbeat = Probe(model), partial(_heartbeat, watch, stop)

        def load() -> Loaders:
            return _loaders(run, stored_tokens(run, model, device, precision, heartbeat), device, share)

        if isinstance(model.head, FittedHead):
            return Fitting(used, probe, probe.fit, *load(), folder, watch, stop), None
        stored = (streams or TokenStreams()).batches(run, load)
        return Training(used, probe, *stored, folder, watch, stop, until, ranks), None
    images = _loaders(run, _images(run), device, share)
    if not run.backbone.is_frozen:
        return Training(used, model, *images, folder, watch, stop, until, ranks), None
    backbone = FrozenBackbone(model.backbone, device, partial(autocast, precision, device))
    tokens = TokenTrainLoader(images.training, backbone)
    evaluated = {name: TokenEvalLoader(loader, backbone) for name, loader in images.evaluations.items()}
    probe = Probe(model)
    if isinstance(model.head, FittedHead):
        return Fitting(used, probe, probe.fit, tokens, evaluated, folder, watch, stop), backbone
    return Training(used, probe, tokens, evaluated, folder, watch, stop, until, ranks), backbone


def _images(run: RunConfig) -> Splits:
    given = (run.seed, run.loader, run.debug)
    if run.tokens.views:
        return open_views(run.dataset, run.augmentation, run.tokens.views, *given)
    return open_splits(run.dataset, *given)


def _loaders(run: RunConfig, splits: Splits, device: torch.device, share: Share) -> Loaders:
    """Return the loaders of a run's images or stored tokens."""
    training = TrainLoader(
        splits.train, run.dataset, run.augmentation, run.seed, run.batch_size, device, run.loader.workers, share
    )
    named = {"val": splits.validation, "test": splits.test}
    named |= {"train": splits.train} if spec_of(run.head).is_fitted else {}
    evaluations = {
        name: EvalLoader(source, run.dataset, run.batch_size, device, run.loader.workers, share)
        for name, source in named.items()
        if source is not None
    }
    return Loaders(training, evaluations)


def _heartbeat(watch: Watcher, stop: Stop) -> None:
    """Report that a run goes on whose training has not begun. Raises Stopped if it is to stop."""
    watch(Progress(0, 1, 0, 1))
    if stop():
        raise Stopped
