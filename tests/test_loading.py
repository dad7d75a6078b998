"""What a record names is loaded, or one line says why it cannot be used."""

import sys

import pytest

from headsweep.errors import UserError
from headsweep.heads import Head
from headsweep.loading import check_options, load_class, load_function

CODE = """
from headsweep.heads import Head

class Whole(Head):
    def __init__(self, width, num_classes, heads, tokens, *, power: float = 1.0):
        super().__init__(width, num_classes, heads, tokens)
    def pool(self, tokens): ...
    def token_weights(self, tokens): ...

class Half(Head):
    def pool(self, tokens): ...

class Other: ...

number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "lab_code.py").write_text(CODE)
    (tmp_path / "lab_broken.py").write_text("import lab_missing")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_class_is_loaded_from_a_module_or_a_file(module, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    by_file = load_class("head=whole", f"{module}/lab_code.py:Whole", Head)
    assert not (module / "__pycache__").exists()
    by_name = load_class("head=whole", "lab_code:Whole", Head)
    assert by_name.__name__ == by_file.__name__ == "Whole"
    assert load_class("head=whole", f"{module}/lab_code.py:Whole", Head) is by_file
    (module / "lab_code.py").write_text(CODE + "\n")
    assert load_class("head=whole", f"{module}/lab_code.py:Whole", Head) is not by_file
    check_options("head=whole", by_name, {"power"})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("lab_nowhere:Whole", "a module lab_nowhere that can be imported, found ModuleNotFoundError: No module named"),
        ("lab_broken:Whole", "a module lab_broken that can be imported, found ModuleNotFoundError: No module named"),
        ("lab_code:Missing", "Missing in lab_code to be a class derived from Head, found nothing"),
        ("lab_code:Other", "Other in lab_code to be a class derived from Head, found <class 'lab_code.Other'>"),
        ("lab_code:number", "number in lab_code to be a class derived from Head, found 3"),
        ("lab_code:Half", "Half to implement token_weights, found no such method"),
    ],
)
def test_a_class_that_cannot_be_used_is_one_line(module, path, expected):
    with pytest.raises(UserError) as caught:
        load_class("head=x", path, Head)
    assert str(caught.value).startswith(f"head=x: expected {expected}") and "\n" not in str(caught.value)


def test_a_function_that_cannot_be_used_is_one_line(module):
    with pytest.raises(UserError, match=r"^metric=x: expected number in lab_code to be a function, found 3$"):
        load_function("metric=x", "lab_code:number")
    assert load_function("metric=x", "builtins:len") is len


def test_options_are_the_keyword_only_parameters(module):
    whole = load_class("head=x", "lab_code:Whole", Head)
    with pytest.raises(UserError, match=r"options of its record \(depth, power\) .* of Whole.__init__, found power$"):
        check_options("head=x", whole, {"power", "depth"})
