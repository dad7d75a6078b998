"""Evaluation is compiled once for all batches of a run, and gives the numbers of eager mode."""

import copy
import logging

import pytest
import torch
from small_model import SmallModel
from torch import Tensor, nn
from torch._dynamo.utils import counters

from composing import compose_run
from factories import default_head
from headsweep.config import RunConfig
from headsweep.heads import HEADS
from headsweep.models.build import build_model
from headsweep.training import compiling
from headsweep.training.cast_weights import Uses, cast_where_autocast_would
from headsweep.training.compiled_evaluation import CompiledEvaluation, filled_up
from headsweep.training.device import autocast
from headsweep.training.evaluation import eager_forward

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SMALL = ["model.width=32", "model.attention_heads=1", "model.depth=1", "batch_size=4"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Graphs are found and run as they are: the bits are comparable."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    torch.compiler.reset()
    counters.clear()


def built(head: str, *overrides: str):
    run = compose_run(*SMALL, "compile=step", *overrides)
    sizes = {"heads": 2, "num_classes": 10, "image_size": 16, "channels": 1, "seed": 0}
    return run, build_model(run.model, default_head(head), **sizes)


def small(*overrides: str):
    return compose_run(*SMALL, "compile=step", *overrides), SmallModel()


def compiled(run: RunConfig, model: nn.Module):
    evaluation = CompiledEvaluation.of(model, run, CPU, steps=2)
    assert evaluation is not None
    return evaluation, model, eager_forward(model, autocast(run.precision, CPU))


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 1, 16, 16)


def test_one_graph_serves_whole_batches_smaller_ones_and_later_weights():
    evaluation, model, eager = compiled(*built("seqpool", "precision=bfloat16"))
    eager = filled_up(eager, 4)  # on a CPU, the last bits depend on the number of images
    for scale in (1, 2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        evaluation.update(model)
        for count in (4, 4, 3, 1):
            batch = images(count)
            assert torch.equal(evaluation(batch), eager(batch))
    assert (counters["stats"]["unique_graphs"], counters["graph_break"]) == (1, {})
    assert evaluation.failure is None


def test_training_mode_gradients_and_averages_of_the_model_are_left_alone():
    evaluation, model, _ = compiled(*small())
    average = copy.deepcopy(model)
    with torch.no_grad():
        average.linear.weight.zero_()
    model.train()
    evaluation.update(average)
    batch = images()
    assert torch.equal(evaluation(batch), eager_forward(average, autocast(compose_run().precision, CPU))(batch))
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_weights_are_cast_once_and_the_logits_keep_their_bits(head):
    evaluation, model, eager = compiled(*built(head, "precision=bfloat16"))
    own, batch = evaluation._model, images()
    with torch.no_grad():
        cast_where_autocast_would(own, evaluation._eager, batch)
        assert torch.bfloat16 in {parameter.dtype for parameter in own.parameters()}
        evaluation.update(model)
        with Uses(own) as uses:
            assert torch.equal(evaluation._eager(batch), eager(batch))
    assert not uses.only_cast, "nothing is left to cast"


class Asking(nn.Module):
    """Its result depends on the dtype of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3))

    def forward(self, x: Tensor, per_head: bool) -> Tensor:
        return x @ self.weight * self.weight.dtype.itemsize


def test_a_model_that_asks_for_the_dtype_of_a_weight_keeps_it():
    model = Asking()
    batch = torch.randn(2, 3)

    def forward(batch: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return model(batch, per_head=True)

    expected = forward(batch)
    cast_where_autocast_would(model, forward, batch)
    assert model.weight.dtype == torch.float32 and torch.equal(forward(batch), expected)


def broken(graph: object, inputs: object):
    raise RuntimeError("no compiler on this machine")


def test_if_compilation_fails_evaluation_continues_in_eager_mode_with_a_reason(monkeypatch, caplog):
    monkeypatch.setattr(compiling, "BACKEND", broken)
    evaluation, _, eager = compiled(*small())
    eager = filled_up(eager, 4)
    with caplog.at_level(logging.WARNING, "headsweep"):
        for count in (4, 2):
            batch = images(count)
            assert torch.equal(evaluation(batch), eager(batch))
    assert [record.getMessage() for record in caplog.records] == [
        "compile: compilation failed, evaluation continues in eager mode (RuntimeError: no compiler on this machine)"
    ]
    assert evaluation.failure == "RuntimeError: no compiler on this machine"


def test_running_out_of_memory_and_errors_of_eager_mode_are_raised(monkeypatch):
    def greedy(*inputs: object):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ValueError, match="images of 20x20: expected 16x16"):
        compiled(*built("gap"))[0](torch.zeros(4, 1, 20, 20))
    monkeypatch.setattr(compiling, "BACKEND", greedy)
    evaluation, _, _ = compiled(*small())
    with pytest.raises(Exception, match="CUDA out of memory"):
        evaluation(images())
    assert evaluation.failure is None


def test_logits_outlive_the_memory_that_the_next_replay_writes_to(monkeypatch):
    memory = torch.empty(4, 1, 10)

    def replaying(graph, inputs):
        return lambda *given: (memory.copy_(graph(*given)[0]),)

    monkeypatch.setattr(compiling, "BACKEND", replaying)
    evaluation, _, eager = compiled(*small())
    evaluation._replays = True  # as a GPU replays
    first, second = images(), images()
    logits = evaluation(first)
    evaluation(second)
    assert torch.equal(logits, eager(first))


def test_a_model_that_cannot_be_copied_is_evaluated_in_eager_mode(caplog):
    run, model = small()
    model.made_by = torch.ones(1, requires_grad=True) * 2  # torch copies no results of operations
    with caplog.at_level(logging.WARNING, "headsweep"):
        assert CompiledEvaluation.of(model, run, CPU, steps=2) is None
    (record,) = caplog.records
    assert record.getMessage().startswith("compile: the model cannot be copied, evaluation is not compiled (Runtime")


@pytest.mark.parametrize("how", ["off", "blocks", "auto"])
def test_where_the_step_is_not_compiled_evaluation_is_not(how):
    run, model = small(f"compile={how}")
    assert CompiledEvaluation.of(model, run, CPU, steps=2) is None


def test_a_smaller_batch_is_filled_up_with_its_last_image_and_cut_again():
    seen = []

    def forward(batch: Tensor) -> Tensor:
        seen.append(batch[:, 0].tolist())
        return batch

    assert filled_up(forward, 4)(torch.tensor([[1.0], [2.0]])).tolist() == [[1.0], [2.0]]
    whole = torch.ones(4, 1)
    assert filled_up(forward, 4)(whole) is whole
    assert seen == [[1.0, 2.0, 2.0, 2.0], [1.0] * 4]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_replayed_logits_are_those_of_eager_mode_but_for_rounding(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    gpu = torch.device("cuda")
    run, model = built("seqattn", "device=cuda")
    model.to(gpu)
    evaluation = CompiledEvaluation.of(model, run, gpu, steps=2)
    eager = eager_forward(model, autocast(run.precision, gpu))
    evaluation.update(model)
    for count in (4, 4, 4, 3):  # compiled, recorded, replayed, filled up
        batch = images(count).to(gpu)
        torch.testing.assert_close(evaluation(batch), eager(batch), rtol=0.02, atol=0.02)
    assert evaluation.failure is None
