"""README and references to documentation pages; `make docs` checks the links within the pages."""

import ast
import re

import pytest

from headsweep.config import PROJECT_ROOT

LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
PAGE = re.compile(r"\bdocs/([\w-]+\.md)")


def anchors(text):
    """Those of the headings of a Markdown page, as GitHub and mkdocs form them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def code(text):
    """Its statements without docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.unparse(tree)


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_lead_to_a_file_and_a_heading(name):
    for path, anchor in LINK.findall((PROJECT_ROOT / name).read_text(encoding="utf-8")):
        target = PROJECT_ROOT / (path or name)
        assert target.exists(), f"{name}: {path} does not exist"
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), (
            f"{name}: no heading {path}#{anchor}"
        )


@pytest.mark.parametrize("folder", ["conf", "sweeps", "src", "benchmarks", "tests"])
def test_pages_that_files_refer_to_exist(folder):
    files = [path for path in (PROJECT_ROOT / folder).rglob("*") if path.suffix in {".py", ".yaml"}]
    named = {(page, path) for path in files for page in PAGE.findall(path.read_text(encoding="utf-8"))}
    missing = [f"{path}: docs/{page}" for page, path in named if not (PROJECT_ROOT / "docs" / page).exists()]
    assert not missing


def test_the_head_in_the_readme_is_the_code_of_gap():
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.+?)```", readme, re.DOTALL)
    assert code(shown) == code((PROJECT_ROOT / "src/headsweep/heads/gap.py").read_text(encoding="utf-8"))
