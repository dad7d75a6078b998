"""Compiled steps give the numbers of eager ones, with one graph for all blocks, and fall back to eager mode."""

import copy
import logging
from collections.abc import Iterable

import pytest
import torch
from small_model import SmallModel, assert_equal_state
from torch import Tensor, nn
from torch._dynamo.utils import counters

import factories
from commands import TINY_RUN
from comparing import differences
from composing import compose_run
from headsweep.config import Compilation, Precision, RunConfig
from headsweep.models.build import build_model, model_of
from headsweep.models.compact import block, transformer
from headsweep.models.compact.attention import attend
from headsweep.models.compact.block import Block
from headsweep.models.drop_path import DropPath
from headsweep.run.train_run import train_folder
from headsweep.tracking.run_folder import RunFolder
from headsweep.training import compiling
from headsweep.training.checkpoint import TrainingState
from headsweep.training.compiling import PAYS_FROM_STEPS, Gradients, choose, repeated_blocks
from headsweep.training.progress import Stopped

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SMALL = ["model.width=32", "model.attention_heads=1", "model.dropout=0.1", "model.drop_path=0.5"]
SHORT = TINY_RUN


@pytest.fixture(autouse=True)
def no_graphs_of_other_tests():
    torch.compiler.reset()
    counters.clear()


@pytest.fixture
def quick_backend(monkeypatch):
    """Graphs are found and cut, and run as they are: code is not generated, which takes half a minute."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")


def built(*overrides):
    run = compose_run(*SMALL, *overrides)
    sizes = {"num_classes": 10, "image_size": 16, "channels": 1, "seed": 0}
    model = build_model(run.model, run.head, heads=run.heads, classifier_norm=run.classifier_norm, **sizes)
    return run, model.train()


def record_calls(monkeypatch, owner, name):
    """A list that gets an item with each call."""
    calls, method = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *arguments: calls.append(name) or method(*arguments))
    return calls


def batch(images=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, 1, 16, 16, generator=generator), torch.full((images, 10), 0.1)


@torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=False)  # by themselves 8, and False
def test_a_process_compiles_the_steps_of_more_models_than_torch_allows(quick_backend):
    """By default, torch compiles eight graphs and then silently stays in eager mode; here one."""
    run, alive = compose_run("compile=step"), []
    for change in (torch.relu, torch.tanh):
        counters.clear()
        gradients = Gradients(SmallModel(change), run, CPU, steps=2)
        alive.append(gradients)
        gradients(*batch(), (0, 0, 0))
        assert (gradients.used, counters["stats"]["unique_graphs"]) == ("step", 1)


def test_one_graph_serves_all_blocks_in_training_and_one_in_evaluation(quick_backend):
    run, model = built("compile=blocks", "model.depth=4")
    gradients = Gradients(model, run, CPU, steps=2)
    gradients(*batch(), (0, 0, 0))
    assert counters["stats"]["unique_graphs"] == 2
    gradients(*batch(), (0, 1, 0))
    model.eval()
    with torch.inference_mode():
        model(batch()[0])
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]


def test_a_step_is_one_graph_with_all_that_is_around_it(quick_backend):
    options = ["precision=bfloat16", "debug=quick", "activation_checkpointing=true", "decorrelation=-0.8"]
    run = compose_run(*SMALL, "compile=step", "model.depth=1", "head=ga", "heads=2", *options)
    run.dataset.num_classes = 10
    gradients = Gradients(model_of(run).train(), run, CPU, steps=2)
    with torch.autograd.set_detect_anomaly(run.debug.detect_anomaly):
        for step in range(2):
            gradients(*batch(), (0, step, 0))
    assert gradients.used == "step"
    assert (counters["stats"]["unique_graphs"], counters["graph_break"]) == (1, {})


@pytest.mark.parametrize(
    "options",
    [
        ["compile=blocks", "precision=bfloat16", "model.block=stream_norm", "model.residual_precision=bfloat16"],
        ["compile=step", "activation_checkpointing=true", "model.block=pre_norm"],
    ],
)
def test_the_block_for_a_gpu_draws_the_masks_of_the_plain_one_in_one_graph(monkeypatch, options):
    """Here with gradients as torch's compiler traces them, without code."""
    depth = f"model.depth={2 if 'compile=blocks' in options else 1}"
    model_options = [depth, "model.dropout=0", "model.attention_dropout=0.5"]
    run, plain = built(*model_options, *options)
    lean = copy.deepcopy(plain)
    eager = Gradients(plain, compose_run(*SMALL, *model_options, *options, "compile=off"), CPU, steps=1)
    expected = eager(*batch(64), (0, 0, 0))
    for module in (block, transformer):
        monkeypatch.setattr(module, "gains", lambda tokens: torch.compiler.is_dynamo_compiling())
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager_decomp_partition")
    used = record_calls(monkeypatch, Block, "lean")
    gradients = Gradients(lean, run, CPU, steps=1)
    found = gradients(*batch(64), (0, 0, 0))
    assert (gradients.used, counters["graph_break"]) == (run.compile.value, {}) and used
    tolerance = {"rtol": 0.05, "atol": 0.02} if run.precision is Precision.bfloat16 else {"rtol": 1e-3, "atol": 1e-5}
    torch.testing.assert_close(found, expected, **tolerance)
    for (name, own), (_, other) in zip(lean.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def test_a_failure_to_compile_for_evaluation_occurs_in_training(monkeypatch):
    def fails_without_gradients(graph, inputs):
        if torch.is_grad_enabled():
            return graph
        raise RuntimeError("nothing for evaluation")

    monkeypatch.setattr(compiling, "BACKEND", fails_without_gradients)
    run, model = built("compile=blocks", "model.depth=2")
    gradients = Gradients(model, run, CPU, steps=2)
    gradients(*batch(), (0, 0, 0))
    assert gradients.used == "off (RuntimeError: nothing for evaluation)" and model.training


@pytest.mark.parametrize(("how", "depth"), [("blocks", 2), ("step", 1)])
def test_checkpoints_and_averages_do_not_depend_on_compilation(quick_backend, tmp_path, how, depth):
    run, model = built(f"compile={how}", f"model.depth={depth}")
    gradients = Gradients(model, run, CPU, steps=2)
    gradients(*batch(), (0, 0, 0))
    plain = built("compile=off", f"model.depth={depth}")[1]
    assert copy.deepcopy(model).state_dict().keys() == model.state_dict().keys() == plain.state_dict().keys()
    TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1), None).snapshot().save(tmp_path / "checkpoint.pt")
    TrainingState(plain, torch.optim.SGD(plain.parameters(), lr=0.1), None).restore(tmp_path / "checkpoint.pt", CPU)


def test_the_blocks_of_a_backbone_are_found():
    compact = built("model.depth=3")[1]
    assert repeated_blocks(compact) == list(compact.backbone.blocks)
    run = compose_run("model=timm", "model.name=resnet26", "model.small_stem=true")
    resnet = build_model(run.model, run.head, heads=1, num_classes=10, image_size=16, channels=1, seed=0)
    assert [type(block).__name__ for block in repeated_blocks(resnet)] == ["Bottleneck"] * 8
    assert repeated_blocks(built("model.depth=1")[1]) == []


def test_auto_compiles_long_runs_on_a_gpu_and_nothing_else():
    gpu, long = torch.device("cuda"), PAYS_FROM_STEPS
    assert choose(compose_run(), gpu, long) is Compilation.step
    assert choose(compose_run("activation_checkpointing=true"), gpu, long) is Compilation.blocks
    assert choose(compose_run(), gpu, long - 1) is Compilation.off
    assert choose(compose_run("debug=quick"), gpu, long) is Compilation.off
    assert choose(compose_run(), CPU, long) is Compilation.off
    assert choose(compose_run(), torch.device("mps"), long) is Compilation.off
    assert choose(compose_run("compile=blocks"), CPU, 1) is Compilation.blocks


def test_torch_accepts_the_options_for_a_gpu():
    options = compiling.compile_options(torch.device("cuda"), graphs=True)
    assert options["options"]["triton.cudagraphs"] and options["options"]["fallback_random"]
    torch.compile(lambda images: images, **options)


def test_micro_batches_add_up_where_graphs_are_replayed(quick_backend):
    model, plain = SmallModel(), SmallModel()
    run, eager = (compose_run("accumulation=2", f"compile={how}") for how in ("step", "off"))
    replayed, oracle = Gradients(model, run, CPU, steps=2), Gradients(plain, eager, CPU, steps=2)
    replayed._replays = True  # as on a GPU
    of_the_graph = []
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda parameter: of_the_graph.append(parameter.grad))
    for micro_batch in range(2):
        actual, reference = (step(*batch(), (0, 0, micro_batch)) for step in (replayed, oracle))
        assert torch.equal(actual, reference)
        if micro_batch == 0:
            for gradient in of_the_graph:  # the next replay writes there
                gradient.zero_()
    for actual, reference in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, reference.grad)


def planned(output, *overrides: str) -> RunFolder:
    return factories.planned(output, *SMALL, "duration='6 steps'", *overrides)


def trained(output, *overrides: str, stops=()) -> RunFolder:
    """To the end; `stops` are the numbers of questions after which it is stopped on the way there."""
    folder = planned(output, *overrides)
    for asked in stops:
        answers = iter([False] * asked)
        with pytest.raises(Stopped):
            train_folder(folder, lambda progress: None, lambda answers=answers: next(answers, True))
        torch.compiler.reset()  # as a new process
    train_folder(folder, lambda progress: None)
    return folder


# With running statistics, which are no gradients.
WHOLE = ["head=gap", "heads=2", "classifier_norm=true", "accumulation=2", "ema_decay=0.9", "model.depth=2"]


@pytest.fixture(scope="module")
def eager(tmp_path_factory) -> RunFolder:
    """A run in eager mode that is not stopped."""
    return trained(tmp_path_factory.mktemp("eager"), *WHOLE)


def broken(graph, inputs):
    raise RuntimeError("no compiler on this machine")


@pytest.mark.parametrize("how", ["blocks", "step"])
def test_if_compilation_fails_the_run_continues_in_eager_mode_with_a_reason_and_the_same_bits(
    eager, tmp_path, monkeypatch, caplog, how
):
    monkeypatch.setattr(compiling, "BACKEND", broken)
    with caplog.at_level(logging.WARNING, "headsweep"):
        failed = trained(tmp_path, *WHOLE, f"compile={how}")
    messages = [record.getMessage() for record in caplog.records if record.name == "headsweep"]
    assert messages == [
        "compile: compilation failed, the run continues in eager mode (RuntimeError: no compiler on this machine)"
    ]
    assert failed.result().environment["compile"] == "off (RuntimeError: no compiler on this machine)"
    assert eager.result().environment["compile"] == "off"
    assert eager.result().environment["precision"] == "float32"  # what auto is on a CPU
    assert differences(eager, failed) == []


def test_a_failure_in_the_backward_pass_leaves_nothing_behind(monkeypatch):
    """Its graph is compiled when it is needed first, when the forward pass has moved the running statistics."""
    model, other = SmallModel(), SmallModel()
    Gradients(other, compose_run("compile=off"), CPU, 2)(*batch(), (0, 0, 0))
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    gradients = Gradients(model, compose_run("compile=step"), CPU, steps=2)
    breaks = iter([True])
    next(model.parameters()).register_hook(lambda gradient: 1 / 0 if next(breaks, False) else None)
    gradients(*batch(), (0, 0, 0))
    assert gradients.used == "off (ZeroDivisionError: division by zero)"
    assert_equal_state(model, other)


@pytest.mark.parametrize("when", ["while it compiles", "while it computes"])
def test_running_out_of_memory_is_not_attributed_to_the_compiler(monkeypatch, when):
    def greedy(*inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(compiling, "BACKEND", greedy if when == "while it compiles" else lambda graph, inputs: greedy)
    gradients = Gradients(SmallModel(), compose_run("compile=step"), CPU, steps=2)
    with pytest.raises(Exception, match="CUDA out of memory"):
        gradients(*batch(), (0, 0, 0))
    assert gradients.used == "step"


def test_an_error_that_eager_mode_raises_too_is_raised_unchanged(quick_backend):
    run, model = built("compile=step", "model.depth=1")
    gradients = Gradients(model, run, CPU, steps=2)
    with pytest.raises(ValueError, match="images of 20x20: expected 16x16, the size that the model was built for"):
        gradients(torch.zeros(4, 1, 20, 20), batch()[1], (0, 0, 0))
    assert gradients.used == "off"


@pytest.mark.parametrize(("how", "stops"), [("blocks", ()), ("step", (2,))])
def test_a_compiled_run_ends_with_the_bits_of_eager_mode(eager, tmp_path, quick_backend, how, stops):
    """Stopped in the middle, too."""
    compiled = trained(tmp_path, *WHOLE, f"compile={how}", stops=stops)
    assert compiled.result().environment["compile"] == how
    assert differences(eager, compiled) == []


class Masked(nn.Module):
    """Tokens to logits of one head, with masks of all kinds: of features, of attention weights, of whole images.

    One query attends, so that each product becomes part of the loops beside it.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query = nn.Parameter(torch.randn(1, 1, 32))
        self.dropout, self.drop_path = nn.Dropout(0.1), DropPath(0.5)

    def forward(self, tokens: Tensor, per_head: bool) -> Tensor:
        query = self.query.expand(len(tokens), -1, -1)
        return self.drop_path(self.dropout(attend(query, tokens, tokens, 0.1)))[..., :10]


@torch._inductor.config.patch(
    {
        "cpp.vec_isa_ok": False,  # g++ compiles loops without vector instructions faster
        "cpp_cache_precompile_headers": False,  # which takes as long as three files
    }
)
def test_generated_code_draws_the_masks_of_eager_mode_and_compiled_again_has_the_same_bits():
    """As runs that go on compile it again; of few loops, as g++ takes two seconds for each."""
    run = compose_run("compile=step")
    model, targets = Masked(), batch()[1]
    tokens = torch.randn(4, 4, 32)

    def gradients_at(steps: Iterable[int], run: RunConfig) -> list[list[Tensor]]:
        gradients, found = Gradients(model, run, CPU, steps=2), []
        for step in steps:
            model.zero_grad()
            loss = gradients(tokens, targets, (0, step, 0))
            found.append([loss, *(parameter.grad for parameter in model.parameters())])
        assert gradients.used == run.compile.value
        return found

    whole = gradients_at([0, 1], run)
    torch.testing.assert_close(whole, gradients_at([0, 1], compose_run("compile=off")), rtol=1e-4, atol=1e-6)
    torch.compiler.reset()  # as a new process
    (again,) = gradients_at([1], run)
    assert all(torch.equal(value, expected) for value, expected in zip(again, whole[1], strict=True))
