"""No step synchronises with the device."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from commands import TINY_RUN
from composing import compose_run
from headsweep.plan.plan import freeze, make_plan
from headsweep.run.train_run import preflight, train_folder
from headsweep.training.loop import Training

SHORT = TINY_RUN
WAITS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default}


class NeverWaits(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in WAITS, f"{func} waits for the device"
        self.calls += 1
        return func(*args, **(kwargs or {}))


def train_with_steps_in(context, tmp_path, monkeypatch, *overrides):
    step, steps = Training._train_step, []

    def watched(self, batch):
        with context(len(steps)):
            loss = step(self, batch)
        steps.append(loss)
        return loss

    monkeypatch.setattr(Training, "_train_step", watched)
    options = ["head=ga", "heads=2", "decorrelation=-0.8", "clip_norm=1", "ema_decay=0.9", "accumulation=2"]
    drops = ["model.dropout=0.1", "model.drop_path=0.1", "duration='4 steps'"]
    plan = make_plan([compose_run(*SHORT, *options, *drops, f"paths.output={tmp_path}", *overrides)])
    freeze(plan, {plan.runs[0].fingerprint: preflight(plan.runs[0].run)})
    train_folder(plan.folders[0], lambda progress: None)
    assert len(steps) == 4


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_no_step_copies_a_number_from_the_device(tmp_path, monkeypatch, optimizer):
    watch = NeverWaits()
    train_with_steps_in(lambda step: watch, tmp_path, monkeypatch, f"optimizer={optimizer}", "device=cpu")
    assert watch.calls > 400, "it has seen the operations"


class Strict:
    """torch raises where the host would wait for the GPU."""

    def __enter__(self):
        torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *error):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("how", ["off", "step"])
def test_no_step_on_a_gpu_waits_for_it(tmp_path, monkeypatch, how):
    """The first two may, in which graphs are compiled and recorded."""
    options = [f"compile={how}", "device=cuda"]
    strict = []

    def watched(step):
        if step < 2:
            return nullcontext()
        strict.append(Strict())
        return strict[-1]

    train_with_steps_in(watched, tmp_path, monkeypatch, *options)
    assert len(strict) == 2, "torch raises within these steps"
