"""Of runs that start together with the same shapes, one compiles and the others wait."""

import os
import signal
from threading import Thread

import pytest
import torch

from composing import compose_run
from headsweep.training.compile_once import compiled_once, shape_key

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


def another(key: str, order: list[str]) -> Thread:
    def work() -> None:
        with compiled_once(key):
            order.append("another")

    thread = Thread(target=work)
    thread.start()
    return thread


def test_the_second_waits_for_the_first_and_goes_on():
    order = []
    with compiled_once("shape"):
        thread = another("shape", order)
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "another"]


def test_other_shapes_and_those_that_come_later_do_not_wait():
    order = []
    with compiled_once("shape"):
        another("other shape", order).join()
    with compiled_once("shape"):
        another("shape", order).join()
    assert order == ["another", "another"]


def test_a_failure_lets_the_next_one_compile():
    with pytest.raises(RuntimeError, match="no compiler"), compiled_once("shape"):
        raise RuntimeError("no compiler")
    order = []
    with compiled_once("shape"):
        thread = another("shape", order)
        thread.join(0.3)
        assert order == []
    thread.join()


def test_a_killed_process_does_not_block_others():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with compiled_once("shape"):
            os.write(writer, b"compiling")
            signal.pause()
    assert os.read(reader, 9) == b"compiling"
    order = []
    thread = another("shape", order)
    thread.join(0.3)
    assert order == [], "it waits for the other process"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    thread.join()
    assert order == ["another"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("seed=1", True),
        ("optimizer.lr=1e-3", True),
        ("augmentation=paper", True),
        ("heads=2", False),
        ("head=gap", False),
        ("model.depth=3", False),
        ("decorrelation=-0.8", False),
        ("dataset.image_size=32", False),
        ("precision=bfloat16", False),
        ("compile=step", False),
    ],
)
def test_runs_of_the_same_shapes_share_what_is_compiled(override, same):
    run = compose_run("heads=4", override)
    assert (shape_key(run, 64, CPU) == shape_key(compose_run("heads=4"), 64, CPU)) is same


def test_the_size_of_the_micro_batch_is_a_part_of_the_shape():
    assert shape_key(compose_run(), 32, CPU) != shape_key(compose_run(), 64, CPU)
