"""The run of a head that is fitted in one pass over the training tokens instead of being trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from headsweep.config import RunConfig
from headsweep.tracking.metric_names import BEST_EPOCH
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult, RunState
from headsweep.training.batches import EvaluationBatch, EvaluationBatches, TrainingBatches
from headsweep.training.checkpoint import write_fitted, write_weights
from headsweep.training.device import (
    autocast,
    choose_device,
    environment,
    make_deterministic,
    memory_clock,
    peak_gpu_memory,
)
from headsweep.training.evaluation import evaluate
from headsweep.training.in_steps import START, InSteps
from headsweep.training.progress import Progress, Stop, Stopped, Watcher
from headsweep.training.ranks import ALONE


class Fitting:
    """One run, from its configuration to its result, with the interface of `Training`.

    Its metrics are those of epoch 1, its result has no epoch and no step. Nothing is saved before its end: a stopped
    run begins again and ends with the same bits.

    Args:
        run: its keys of optimizer, schedule and duration have no effect.
        model: tokens to logits.
        fit: fits the model to (tokens, labels) of all batches.
        batches: for measurements.
        evaluations: "train", "test" and, where images are held out, "val": batches of all images in order.
        folder: of the run.
        watch: receives the progress.
        stop: called after each batch.
    """

    def __init__(
        self,
        run: RunConfig,
        model: nn.Module,
        fit: Callable[[Iterable[tuple[Tensor, Tensor]]], None],
        batches: TrainingBatches,
        evaluations: Mapping[str, EvaluationBatches],
        folder: RunFolder,
        watch: Watcher,
        stop: Stop,
    ) -> None:
        self.run, self.batches, self.folder, self.watch, self.stop = run, batches, folder, watch, stop
        self.evaluations, self.device = evaluations, choose_device(run.device)
        make_deterministic(self.device)
        self.model, self.fit = model.to(self.device).eval(), fit
        self.steps = sum(map(len, evaluations.values()))
        self.step = 0

    def __call__(self) -> RunResult:
        """Fit and evaluate. Raises Stopped if `stop` returned true."""
        self.folder.metrics_log.rewind(0)
        fingerprint = self.folder.record().fingerprint
        started = time.perf_counter()
        self.fit(self._pairs())
        seconds = time.perf_counter() - started
        metrics = {
            f"{split}/{name}": value for split in ("val", "test") for name, value in self._metrics(split).items()
        }
        if "val" in self.evaluations:  # its weights are those of the best epoch, too
            metrics |= {f"best/{name.removeprefix('test/')}": metrics[name] for name in metrics if "test/" in name}
            metrics[BEST_EPOCH] = 1.0
            write_weights(self.folder.best, self.model, 1, fingerprint)
        self.folder.check_claim()
        self.folder.metrics_log.append(Entry(1, len(self.evaluations["train"]), metrics, {"time": time.time()}))
        self.folder.metrics_log.sync()
        write_fitted(self.folder.checkpoint, self.model, fingerprint)
        return self._result(metrics, seconds)

    def in_steps(self) -> InSteps[RunResult]:
        """Do the same in one step."""
        yield START
        return self()

    def rehearsal(self) -> Iterator[None]:
        """Pool batches of training tokens for ever, for measurements; yield after each."""
        while True:
            for batch in self.batches.epoch(0):
                with torch.inference_mode():
                    self.model(batch.images)
                yield

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._interruptible("train"):
            with torch.no_grad():
                yield batch.images, batch.labels

    def _metrics(self, split: str) -> dict[str, float]:
        if split not in self.evaluations:
            return {}
        found = evaluate(self.model, self._interruptible(split), autocast(self.run.precision, self.device), ALONE)
        if split == "test":
            self.folder.check_claim()
            self.folder.write_test_correct(found.correct)
        return found.metrics

    def _interruptible(self, split: str) -> Iterator[EvaluationBatch]:
        for batch in self.evaluations[split]:
            if self.stop():
                raise Stopped
            yield batch
            self.step += 1
            self.watch(Progress(self.step, self.steps, 0, 1, gpu_memory_gib=peak_gpu_memory(self.device)))

    def _result(self, metrics: Mapping[str, float], seconds: float) -> RunResult:
        clock = {"train_seconds": seconds, **memory_clock(self.device)}
        place = environment(self.device, 1, self.run.precision) | {"compile": "off"}
        return RunResult(RunState.finished.value, dict(metrics), epochs=0, steps=0, clock=clock, environment=place)
