"""The training loop, the same for every head, data set and tracker."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from headsweep.config import Compilation, RunConfig
from headsweep.tracking.metric_names import BEST_EPOCH, TEST_TOP1, TRAIN_LOSS, VAL_TOP1
from headsweep.tracking.metrics_log import Entry, series
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult, RunState
from headsweep.training.background import BackgroundWriter
from headsweep.training.batch_norm import normalise_over_all
from headsweep.training.batches import EvaluationBatches, TrainingBatch, TrainingBatches
from headsweep.training.checkpoint import Snapshot, TrainingState
from headsweep.training.compiled_evaluation import CompiledEvaluation, filled_up
from headsweep.training.compiling import Gradients
from headsweep.training.device import (
    autocast,
    choose_device,
    environment,
    make_deterministic,
    memory_clock,
    peak_gpu_memory,
)
from headsweep.training.evaluation import Evaluation, Evaluator, Forward, eager_forward
from headsweep.training.in_steps import InSteps, Place, to_the_end
from headsweep.training.optimization import build_optimizer, build_schedule, run_steps
from headsweep.training.progress import Progress, Stop, Stopped, Watcher
from headsweep.training.ranks import ALONE, Ranks

PROGRESS_SECONDS = 0.25  # between two reports of progress within an epoch


class Training:
    """One run, from its configuration to its result."""

    def __init__(
        self,
        run: RunConfig,
        model: nn.Module,
        batches: TrainingBatches,
        evaluations: Mapping[str, EvaluationBatches],
        folder: RunFolder,
        watch: Watcher,
        stop: Stop,
        until: int | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """`evaluations` holds "test" and, where images are held out, "val": the split that is evaluated each epoch.

        Batches and evaluations are this rank's shares. `until` is the epoch after which the run pauses; None: it does
        not pause.
        """
        self.run, self.batches, self.evaluations, self.folder = run, batches, evaluations, folder
        self.watch, self.stop, self.until, self.ranks = watch, stop, until, ranks
        self.device = ranks.device(choose_device(run.device))
        make_deterministic(self.device)
        torch.autograd.set_detect_anomaly(run.debug.detect_anomaly)
        self.steps, warmup = run_steps(run, batches.steps_per_epoch)
        self.epochs = math.ceil(self.steps / batches.steps_per_epoch)
        model = model.to(self.device)
        optimizer = build_optimizer(model, run.optimizer)
        average = None if run.ema_decay is None else ModelEmaV3(model, decay=run.ema_decay)
        self.compiled_evaluation = CompiledEvaluation.of(model, run, self.device, self.steps, ranks)
        normalise_over_all(model, ranks)
        self.gradients = Gradients(model, run, self.device, self.steps, ranks)
        self.state = TrainingState(model, optimizer, average)
        self.schedule = build_schedule(optimizer, run.schedule, self.steps, warmup)
        self.each_epoch = "val" if "val" in evaluations else "test"
        self.writer = BackgroundWriter()
        self.evaluated = 0  # batches since the last step
        self.seconds_away = 0.0  # in which other runs of this process had their turn

    def __call__(self) -> RunResult:
        """Train to the end, as `in_steps`."""
        return to_the_end(self.in_steps())

    def in_steps(self) -> InSteps[RunResult]:
        """Train to the end, from the last checkpoint if there is one.

        Raises:
            Stopped: `stop` returned true, or epoch `until` is done; the checkpoint has all steps so far.
            OSError: a checkpoint could not be written; the one before it remains.
        """
        with self.writer:
            return (yield from self._trained())

    def _trained(self) -> InSteps[RunResult]:
        self._continue()
        yield from self._give_way()
        while self.state.step < self.steps or self.state.losses:
            if self._is_to_pause():
                raise Stopped
            started, first, away = time.perf_counter(), self.state.step, self.seconds_away
            losses = yield from self._train_epoch()
            seconds = time.perf_counter() - started - (self.seconds_away - away)
            self.state.train_seconds += seconds
            self._stop_if_requested()
            bad = (~losses.isfinite()).nonzero()
            if len(bad):
                first_bad = int(bad[0])
                return self._diverged(losses[first_bad].item(), self.state.step - len(losses) + first_bad)
            evaluated = yield from self._evaluate(self.each_epoch)
            metrics = {TRAIN_LOSS: losses.mean().item(), **evaluated}
            if not math.isfinite(metrics[f"{self.each_epoch}/loss"]):  # the last step of the epoch diverged
                return self._diverged(metrics[f"{self.each_epoch}/loss"], self.state.step)
            is_best = self.each_epoch == "val" and self._is_best(metrics)
            images = (self.state.step - first) * self.run.batch_size  # none if it was stopped in an evaluation
            self._log(metrics, **({"images_per_second": images / seconds} if images else {}))
            self.state.losses = []
            self._save(is_best)
            self._report(metrics)
        return (yield from self._finished())

    def _give_way(self) -> InSteps[None]:
        """Let other runs of this process have their turn."""
        left = time.perf_counter()
        yield Place(self.state.step, self.evaluated)
        self.seconds_away += time.perf_counter() - left

    def rehearsal(self) -> Iterator[None]:
        """Repeat the first epoch, for measurements; nothing is evaluated, logged or saved.

        Yields:
            After each step, which the device may still be at.
        """
        self.state.model.train()
        while True:
            self.state.step = 0
            for batch in islice(self.batches.epoch(0), self.steps):
                self._train_step(batch)
                self.state.step += 1
                yield

    def _continue(self) -> None:
        self.state.fingerprint = self.folder.record().fingerprint
        if self.folder.checkpoint.exists():
            self.state.restore(self.folder.checkpoint, self.device)
        if self.ranks.leads:
            logged, log = self.state.step - len(self.state.losses), self.folder.metrics_log
            epochs = math.ceil(logged / self.batches.steps_per_epoch)
            log.check_epochs(log.entries(), epochs, self.folder.checkpoint.name)
            log.rewind(self.state.step)
        self._report({})

    def _is_to_pause(self) -> bool:
        """Evaluate, log and save at the end of an epoch."""
        if self.until is None or self.state.losses:
            return False
        return self.state.step >= self.until * self.batches.steps_per_epoch

    def _train_epoch(self) -> InSteps[Tensor]:
        """Train the rest of an epoch or of the duration; return the loss of each step, float64 on the CPU."""
        state = self.state
        state.model.train()
        done = len(state.losses)  # steps of this epoch before the run was interrupted
        batches = self.batches.epoch((state.step - done) // self.batches.steps_per_epoch, done)
        for batch in islice(batches, self.steps - state.step):
            state.losses.append(self._train_step(batch))
            state.step += 1
            self.evaluated = 0
            self.writer.check()
            self._report_if_due()
            yield from self._give_way()
            if self.ranks.any(self.stop()):  # in each step, which also detects a lost rank
                break
        return torch.stack(state.losses).double().cpu()  # the only transfer to the host in an epoch

    def _stop_if_requested(self) -> None:
        if self.ranks.any(self.stop()):
            if self.state.losses:  # else the checkpoint is complete, and the model may hold the best weights
                self._save()
            raise Stopped

    def _save(self, is_best: bool = False) -> None:
        """Write a checkpoint while training goes on; the weights, too, if they are the best so far.

        Until the checkpoint is replaced, a killed run continues from the one before it: it trains this epoch again,
        whatever the metrics log and the file of the best weights have of it, and comes here again.
        """
        if self.ranks.leads:
            self.folder.check_claim()
            self.writer.wait()  # memory is for one snapshot
            self.writer.start(partial(self._write, self.state.snapshot(), self._epoch if is_best else None))

    def _write(self, snapshot: Snapshot, best: int | None) -> None:
        """Write a snapshot in the writer's thread, as the best weights, too, if they are those of epoch `best`."""
        self.folder.metrics_log.sync()  # or, after a power cut, the checkpoint could be ahead of the metrics
        self.folder.check_claim()
        if best is not None:
            snapshot.save_evaluated(self.folder.best, best)
        snapshot.save(self.folder.checkpoint)

    def _is_best(self, metrics: Mapping[str, float]) -> bool:
        """Return whether the validation accuracy exceeds that of all earlier epochs, which the metrics log has."""
        if not self.ranks.leads:
            return False
        earlier = series(self.folder.metrics_log.entries(), VAL_TOP1).values()
        return all(metrics[VAL_TOP1] > value for value in earlier)

    def _train_step(self, batch: TrainingBatch) -> Tensor:
        """One optimizer step over the micro-batches of `batch`; its mean loss, over all ranks."""
        run, state = self.run, self.state
        self.schedule.step_update(state.step)
        micro_batches = zip(batch.images.chunk(run.accumulation), batch.targets.chunk(run.accumulation), strict=True)
        total = torch.zeros((), device=self.device)
        for number, (images, targets) in enumerate(micro_batches):
            # Ranks draw as the micro-batches of one process would.
            place = number * self.ranks.count + self.ranks.rank
            total += self.gradients(images, targets, (run.seed, state.step, place))
        gradients = [parameter.grad for parameter in state.model.parameters() if parameter.grad is not None]
        self.ranks.average([*gradients, total])
        if run.clip_norm is not None:
            nn.utils.clip_grad_norm_(state.model.parameters(), run.clip_norm)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        if state.average is not None:
            state.average.update(state.model, step=state.step)
        return total

    def _evaluate(self, split: str) -> InSteps[dict[str, float]]:
        found = yield from self._evaluate_split(split)
        if split == "test" and self.ranks.leads:
            self.folder.check_claim()
            # Before the metrics are logged: after a crash, logged metrics mean that this file exists.
            self.folder.write_test_correct(found.correct)
        return {f"{split}/{name}": value for name, value in found.metrics.items()}

    def _evaluate_best(self) -> InSteps[dict[str, float]]:
        """Test the best weights, without metrics of single heads. The model keeps them: training has ended."""
        epoch = self.state.restore_evaluated(self.folder.best, self.device)
        values = (yield from self._evaluate_split("test")).metrics
        return {BEST_EPOCH: epoch, **{f"best/{name}": value for name, value in values.items() if "/" not in name}}

    def _evaluate_split(self, split: str) -> InSteps[Evaluation]:
        batches = self.evaluations[split]
        common = min(self.ranks.gather(len(batches)))  # some ranks may have one more
        evaluator = Evaluator(self._forward(), self.ranks)
        for number, batch in enumerate(batches):
            evaluator.add(batch)
            self.evaluated += 1
            self._report_if_due()
            yield from self._give_way()
            if number < common:
                self._stop_if_requested()
        return evaluator.result()

    def _forward(self) -> Forward:
        """Return the forward pass of the evaluated weights."""
        if self.compiled_evaluation is not None and self.gradients.used == Compilation.step.value:
            self.compiled_evaluation.update(self.state.evaluated)
            return self.compiled_evaluation
        eager = eager_forward(self.state.evaluated, autocast(self.run.precision, self.device))
        is_of_blocks = self.gradients.used == Compilation.blocks.value and self.state.average is None
        return filled_up(eager, self.run.batch_size // self.ranks.count) if is_of_blocks else eager

    def _log(self, metrics: dict[str, float], **clock: float) -> None:
        if self.ranks.leads:
            self.folder.check_claim()
            self.folder.metrics_log.append(Entry(self._epoch, self.state.step, metrics, {"time": time.time(), **clock}))

    @property
    def _epoch(self) -> int:
        """Epochs begun."""
        return math.ceil(self.state.step / self.batches.steps_per_epoch)

    def _report_if_due(self) -> None:
        if time.monotonic() - self._reported > PROGRESS_SECONDS:
            self._report({})

    def _report(self, metrics: dict[str, float]) -> None:
        self._reported = time.monotonic()
        epoch = self.state.step // self.batches.steps_per_epoch
        memory = peak_gpu_memory(self.device)
        self.watch(Progress(self.state.step, self.steps, epoch, self.epochs, metrics, memory))

    def _finished(self) -> InSteps[RunResult]:
        self.writer.wait()
        known = any(TEST_TOP1 in entry.metrics for entry in self.folder.metrics_log.entries())
        # Otherwise it is evaluated each epoch, or a crash came between its log entry and the result.
        known, has_best = self.ranks.gather((known, self.folder.best.exists()))[0]
        if not known:
            metrics = yield from self._evaluate("test")
            best = (yield from self._evaluate_best()) if has_best else {}
            self._log(metrics | best)
        return self._result(RunState.finished)

    def _diverged(self, loss: float, step: int) -> RunResult:
        return self._result(RunState.diverged, f"the loss is {loss} at step {step} of {self.steps}")

    def _result(self, state: RunState, note: str = "") -> RunResult:
        entries = self.folder.metrics_log.entries()
        speeds = sorted(e.clock["images_per_second"] for e in entries if "images_per_second" in e.clock)
        clock = {"train_seconds": self.state.train_seconds, **memory_clock(self.device)}
        if speeds:
            clock["images_per_second"] = speeds[len(speeds) // 2]  # of the median epoch, unaffected by a stall
        metrics = {name: value for entry in entries for name, value in entry.metrics.items()}
        epochs = entries[-1].epoch if entries else 0
        place = environment(self.device, self.ranks.count, self.run.precision) | {"compile": self._used_compilation}
        return RunResult(state.value, metrics, epochs, self.state.step, clock, place, note)

    @property
    def _used_compilation(self) -> str:
        failure = self.compiled_evaluation and self.compiled_evaluation.failure
        return f"{self.gradients.used}, evaluation off ({failure})" if failure else self.gradients.used
