"""A class in a plain file is a head: its options are read from its text, and its content is part of the identity."""

import pickle
import sys

import pytest
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from composing import compose_run
from headsweep.config import HeadConfig, parse, spec_of
from headsweep.config.composition import one_line
from headsweep.config.overrides import OverrideFinder, words
from headsweep.config.study.expansion import composer
from headsweep.errors import ConfigError, UserError
from headsweep.heads import head_class
from headsweep.models import model_of
from headsweep.plan.fingerprint import fingerprint, identity
from headsweep.plan.frozen import frozen
from headsweep.plan.plan import freeze, make_plan
from headsweep.tracking.typed_files import Damaged

HEAD = '''
import a_package_that_is_not_installed

class MyHead(Head):
    """Pools."""

    class_token = True

    def __init__(self, width, num_classes, heads, tokens, *, depth: int, rate: float = 0.5, kind: "str | None" = None):
        super().__init__(width, num_classes, heads, tokens)
'''.replace('"str | None"', "str | None")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my head.py"
    path.write_text(HEAD)
    return path


def run(file, *overrides):
    return compose_run(f"head='{file}:MyHead'", "head.depth=2", *overrides)


def test_options_are_typed_and_have_the_defaults_of_the_class(file):
    head = run(file, "head.rate=1").head
    assert (head.name, head.depth, head.rate, head.kind) == ("MyHead", 2, 1.0, None)
    assert spec_of(head).class_path == f"{file}:MyHead" and spec_of(head).class_token
    assert isinstance(head, HeadConfig) and "a_package_that_is_not_installed" not in sys.modules
    for wrong, expected in {
        "head.depth=x": "head.depth=x: expected an integer",
        "++head.width=3": "head.width: ",
    }.items():
        with pytest.raises(ConfigError, match=expected):
            run(file, wrong)
    with pytest.raises(OmegaConfBaseException) as caught:
        compose_run(f"head='{file}:MyHead'")
    assert one_line(caught.value) == "head.depth: expected a value, found none"


def test_the_content_is_part_of_the_identity_and_the_place_is_not(file, tmp_path):
    first = run(file)
    for name, text in {"same": HEAD, "other": HEAD + "\n"}.items():
        copy = tmp_path / f"{name}.py"
        copy.write_text(text)
        assert (fingerprint(run(copy)) == fingerprint(first)) == (text == HEAD)
    assert "head.file" not in identity(first)


def test_a_run_keeps_a_copy_of_the_file(file, tmp_path):
    plan = make_plan([run(file, f"paths.output={tmp_path}")])
    freeze(plan, {plan.runs[0].fingerprint: {}})
    file.unlink()
    (folder,) = plan.folders
    read = frozen(folder)
    assert read.head.file == str(folder.path / "head.py") and fingerprint(read) == plan.runs[0].fingerprint
    (folder.path / "head.py").write_text(HEAD.replace("0.5", "0.6"))
    with pytest.raises(Damaged, match=r"head\.py, expected the content with digest \w+, found \w+; remove"):
        frozen(folder)


def test_it_reaches_another_process(file):
    head = run(file).head
    assert pickle.loads(pickle.dumps(head)) == head
    file.write_text(HEAD + "\n")
    with pytest.raises(ConfigError, match=r"the file was changed; restore it"):
        pickle.loads(pickle.dumps(head))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "expected a readable file, found: No such file"),
        ("class Other: ...", "expected a class of the file, found no MyHead; its classes: Other"),
        ("class MyHead(:", r"expected Python code, found invalid syntax"),
        (HEAD.replace("depth: int", "depth: Tensor"), "expected int, float, .* of the option depth, found Tensor"),
        (HEAD.replace("depth: int", "depth"), "of the option depth, found no type"),
        (HEAD.replace("depth: int", "file: int"), "expected another name than file for an option"),
        (HEAD.replace("= 0.5", "= half()"), r"expected a plain value as the default of rate, found half\(\)"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(file, text, expected):
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(ConfigError, match=expected) as caught:
        run(file)
    assert "\n" not in str(caught.value)


FITTED = """
from headsweep.heads import FittedHead

class MyHead(FittedHead):
    def pool(self, tokens): ...
    def token_weights(self, tokens): ...
    def fit(self, batches): ...
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "from headsweep.heads.cls import ClsHead\n\nclass MyHead(ClsHead): ...",
            "expected class_token=True in the lines of MyHead, as the class has it, found False",
        ),
        (FITTED, "expected a head that is trained, found a FittedHead; put it into a package"),
    ],
)
def test_what_its_text_does_not_show_is_refused(file, text, expected):
    file.write_text(text)
    with pytest.raises(UserError, match=f"MyHead: {expected}$"):
        head_class(compose_run(f"head='{file}:MyHead'").head)


@pytest.mark.parametrize("ending", ["", ":", ":My-Head"])
def test_a_choice_without_a_class_names_those_of_the_file(file, ending):
    with pytest.raises(ConfigError) as caught:
        compose_run(f"head='{file}{ending}'")
    assert str(caught.value) == f"head={file}{ending}: expected FILE.py:CLASS; classes in it: MyHead"


def test_it_has_a_name_of_its_own(file):
    file.write_text(HEAD.replace("MyHead", "gap"))
    with pytest.raises(ConfigError, match="expected another name than that of the head gap; rename the class"):
        compose_run(f"head='{file}:gap'")


def test_the_copy_is_what_the_frozen_configuration_names(file, tmp_path):
    """So that a folder of runs can be moved."""
    plan = make_plan([run(file, f"paths.output={tmp_path / 'here'}")])
    freeze(plan, {plan.runs[0].fingerprint: {}})
    assert OmegaConf.load(plan.folders[0].config).head.file == str(file)
    (tmp_path / "here").rename(tmp_path / "there")
    folder = type(plan.folders[0])(tmp_path / "there" / "runs" / plan.runs[0].fingerprint)
    assert frozen(folder).head.file == str(folder.path / "head.py")


MEAN = """
from headsweep.heads import Head


class Scaled(Head):
    def __init__(self, width, num_classes, heads, tokens, *, by: float = 2.0):
        super().__init__(width, num_classes, heads, tokens)
        self.by = by

    def pool(self, tokens):
        return self.by * tokens.mean(1, keepdim=True).expand(-1, self.heads, -1)

    def token_weights(self, tokens):
        return None
"""


def test_a_run_is_built_from_its_copy(tmp_path):
    file = tmp_path / "scaled.py"
    file.write_text(MEAN)
    plan = make_plan([compose_run(f"head={file}:Scaled", "head.by=3", "heads=2", f"paths.output={tmp_path}")])
    freeze(plan, {plan.runs[0].fingerprint: {}})
    file.write_text(MEAN.replace("self.by *", "0 *"))
    head = model_of(frozen(plan.folders[0])).head
    assert (type(head).__name__, head.by, head.heads) == ("Scaled", 3.0, 2)
    assert torch.equal(head.pool(torch.ones(1, 4, head.width)), torch.full((1, 2, head.width), 3.0))
    assert sorted(path.name for path in plan.folders[0].path.iterdir()) == ["config.yaml", "head.py", "run.json"]


def test_the_command_of_a_run_names_the_file(tmp_path):
    file = tmp_path / "scaled.py"
    file.write_text(MEAN)
    run = compose_run(f"head={file}:Scaled", "head.by=3", "heads=2")
    with composer() as compose:
        (found,) = OverrideFinder(compose).find([run])
        assert found == {"head": f"{file}:Scaled", "heads": "2", "head.by": "3.0", "seed": "0"}
        assert fingerprint(parse(compose(words(found)))) == fingerprint(run)
