"""Only a checkout of this project says which code a run has; why there is none is said once."""

from __future__ import annotations

import subprocess
from importlib.metadata import version

import pytest

from headsweep.folders import code_digest
from headsweep.plan import git_state as module
from headsweep.plan.git_state import code_version

UNKNOWN = {"commit": None, "dirty": False, "version": version("headsweep"), "digest": code_digest()}


def git(root, *arguments) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    answer = subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, text=True)
    return answer.stdout.strip()


@pytest.fixture(autouse=True)
def say_all(monkeypatch):
    module._warn.cache_clear()


def checkout(root):
    (root / "src").mkdir(parents=True)
    (root / "src" / "code.py").write_text("1")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "code")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder `other/vendored/project`, in which a test puts what it is about; `other` is a checkout, too."""
    checkout(tmp_path / "other")
    (tmp_path / "other" / ".gitignore").write_text("vendored\n")
    root = tmp_path / "other" / "vendored" / "project"
    (root / "src").mkdir(parents=True)
    monkeypatch.setattr(module, "PROJECT_ROOT", root)
    return root


def test_a_checkout_around_the_project_is_not_its_own(project, capsys):
    assert code_version() == code_version() == UNKNOWN
    assert capsys.readouterr().err == (
        f"headsweep: no commit is recorded: {project} is inside the checkout of another project, {project.parents[1]}\n"
    )


def test_the_repository_of_a_hook_is_not_asked(project, monkeypatch):
    (project / "src").rmdir()
    commit = checkout(project)
    other = project.parents[1]
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    assert code_version() == {"commit": commit, "dirty": False}
    (project / "src" / "more.py").touch()
    assert code_version() == {"commit": commit, "dirty": True}


def test_a_worktree_and_a_shallow_clone_are_checkouts(project, monkeypatch, tmp_path):
    (project / "src").rmdir()
    commit = checkout(project)
    git(project, "worktree", "add", "-q", str(tmp_path / "worktree"))
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{project}", str(tmp_path / "shallow"))
    for root in ("worktree", "shallow"):
        monkeypatch.setattr(module, "PROJECT_ROOT", tmp_path / root)
        assert code_version() == {"commit": commit, "dirty": False}


def test_nothing_is_run_that_a_repository_names(project, tmp_path):
    (project / "src").rmdir()
    checkout(project)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    git(project, "config", "core.fsmonitor", str(program))
    git(project, "config", "status.showUntrackedFiles", "no")
    (project / "src" / "more.py").touch()
    (tmp_path / "ran").unlink(missing_ok=True)
    assert code_version()["dirty"] and not (tmp_path / "ran").exists()


def test_why_it_is_unknown_is_said(project, monkeypatch, capsys):
    git(project, "init", "-q")
    assert code_version() == UNKNOWN
    assert "git finds no version of the code in" in capsys.readouterr().err  # no commit yet
    monkeypatch.setenv("PATH", "")
    assert code_version() == UNKNOWN
    assert "git cannot be run" in capsys.readouterr().err


def test_a_checkout_of_somebody_else_is_said(project, monkeypatch, capsys):
    (project / "src").rmdir()
    checkout(project)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setattr(module, "git_environment", lambda: {**__import__("os").environ})
    assert code_version() == UNKNOWN
    assert "detected dubious ownership" in capsys.readouterr().err
