"""Packages add records by entry points; each mistake in one is a line, and harms no other record."""

import sys

import pytest

from headsweep.config import HeadConfig, HeadSpec
from headsweep.config.records import registry as module
from headsweep.config.records.registry import Registry
from headsweep.errors import UserError

GROUP = "headsweep.heads"
OWN = HeadSpec(HeadConfig, "headsweep.heads.gap:GapHead", "a paper", "Mean")
RECORDS = """
from headsweep.config import HeadConfig, HeadSpec
HEAD = HeadSpec(HeadConfig, "a:B", "here", "A head")
NONE = HeadConfig
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution with one module and its entry points on the import path, and returns a registry."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(points, code=RECORDS, name="lab-heads"):
        top = name.replace("-", "_")
        monkeypatch.delitem(sys.modules, top, raising=False)
        info = tmp_path / f"{top}-2.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.1\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")
        (tmp_path / f"{top}.py").write_text(code)
        module._installed.cache_clear()
        return Registry(GROUP, "head", HeadSpec, {"gap": OWN})

    yield installed
    module._installed.cache_clear()


def test_a_package_s_record_stands_beside_the_own(install):
    heads = install("median = lab_heads:HEAD")
    assert list(heads) == ["gap", "median"] and heads["median"].summary == "A head"
    assert heads["gap"] is OWN and heads.package("gap") is None
    assert str(heads.package("median")) == "lab-heads 2.1"
    assert heads.lines("lab-heads") == ["median = lab_heads:HEAD"]
    with pytest.raises(KeyError):
        heads["mean"]


def test_nothing_is_imported_to_know_which_packages_there_are(install):
    heads = install("median = lab_heads:HEAD", "raise AssertionError")
    assert [package.top for package in heads.packages()] == ["lab_heads"]
    assert heads["gap"] is OWN and "lab_heads" not in sys.modules


@pytest.mark.parametrize(
    ("points", "code", "expected"),
    [
        ("bad = nowhere:HEAD", "", "expected a record that can be imported, found ModuleNotFoundError: No module"),
        ("bad = lab_heads:HEADS", RECORDS, "expected a record that can be imported, found AttributeError: module"),
        ("bad = lab_heads:HEAD", "1 / 0", "expected a record that can be imported, found ZeroDivisionError: division"),
        ("bad = lab_heads:NONE", RECORDS, "expected a HeadSpec, found the class HeadConfig (entry point of lab-heads"),
        (
            "bad = lab_heads:HEAD",
            "class Options: ...\n" + RECORDS.replace("HeadSpec(HeadConfig", "HeadSpec(Options"),
            "options=Options: expected a dataclass derived from HeadConfig in the record of ",
        ),
        (
            "bad = lab_heads:HEAD",
            RECORDS.replace("HEAD =", "class Options(HeadConfig): depth: int\nHEAD =").replace(
                "HeadSpec(HeadConfig", "HeadSpec(Options"
            ),
            "options=Options: expected a dataclass derived from HeadConfig in the record of ",
        ),
        ("bad-name = lab_heads:HEAD", RECORDS, "expected a name of letters, digits and _"),
    ],
)
def test_a_mistake_is_one_line_and_harms_no_other_record(install, capsys, points, code, expected):
    heads = install(points, code)
    with pytest.raises(UserError) as caught:
        heads[points.split()[0]]
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert list(heads) == list(heads) == ["gap"]
    assert capsys.readouterr().err == f"headsweep: {caught.value}\n"


def test_a_name_that_two_packages_give_is_refused_where_it_is_used(install):
    heads = install("gap = lab_heads:HEAD\nmedian = lab_heads:HEAD")
    with pytest.raises(
        UserError, match=r"head=gap: expected one package .* found headsweep and lab-heads 2\.1; rename"
    ):
        heads["gap"]
    assert list(heads) == ["median"]


def test_a_record_that_imports_torch_is_refused(install, monkeypatch):
    for name in [name for name in sys.modules if name == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    heads = install("median = lab_heads:HEAD", RECORDS + "import sys; sys.modules['torch'] = sys\n")
    for _ in range(2):
        with pytest.raises(UserError, match="does not import torch, found that it does; put it in another module"):
            heads["median"]
    monkeypatch.delitem(sys.modules, "torch")
