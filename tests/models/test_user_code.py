"""A head or backbone of the user that fails is one line with its place; one of headsweep keeps its traceback."""

import pytest

from composing import compose_run
from headsweep.errors import ConfigError
from headsweep.models.user_code import UserCode, building, running
from headsweep.run.train_run import preflight

CODE = """
import sys
from headsweep.heads import Head


class Mine(Head):
    def pool(self, tokens):
        return tokens.mean(1, keepdim=True).expand(-1, self.heads, -1)

    def token_weights(self, tokens):
        return None


class WrongShape(Mine):
    def pool(self, tokens):
        return tokens.mean(1)


class NoTensor(Mine):
    def pool(self, tokens):
        pass


class Signature(Mine):
    def __init__(self, dim, classes):
        super().__init__(dim, classes, 1, 16)


class Constructor(Mine):
    def __init__(self, *sizes, **named):
        raise RuntimeError("first\\nsecond")


class Exit(Mine):
    def pool(self, tokens):
        sys.exit(0)


class Logits(Mine):
    def classify(self, pooled):
        return pooled @ tuple()
"""


def mistake(choice: str) -> str:
    with pytest.raises(ConfigError) as caught:
        preflight(compose_run(f"head={choice}", "dataset=digits", "device=cpu"))
    return str(caught.value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("WrongShape", "pool: expected (b, k, d) = (2, 1, 128), found (2, 128)"),
        ("NoTensor", "pool: expected (b, k, d) = (2, 1, 128), found NoneType"),
        ("Signature", "TypeError: Signature.__init__() got an unexpected keyword argument 'width'"),
        ("Constructor", "RuntimeError: first (./mine.py:31)"),
        ("Exit", "SystemExit: 0 (./mine.py:36)"),
    ],
)
def test_a_head_that_fails_is_one_line(folder, name, expected):
    choice = f"./mine.py:{name}"
    assert mistake(choice) == f"head={choice}: {expected}; headsweep check-head {choice} shows more"


def test_an_error_after_pooling_has_its_place(folder):
    assert mistake("./mine.py:Logits").startswith("head=./mine.py:Logits: TypeError: ")
    assert "(./mine.py:41)" in mistake("./mine.py:Logits")


def test_a_correct_head_is_counted(folder):
    cost = preflight(compose_run("head=./mine.py:Mine", "dataset=digits", "device=cpu"))
    assert cost["head_parameters"] == 128 * 10 + 10


def test_an_exception_of_other_code_passes():
    with pytest.raises(RuntimeError, match=r"^mine$"), building(None):
        raise RuntimeError("mine")
    with pytest.raises(RuntimeError, match=r"^mine$"), running(UserCode("head", "it", int, "")):
        raise RuntimeError("mine")
