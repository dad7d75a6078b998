"""A run that is planned with uncommitted changes keeps them, as a patch that makes the same files again."""

from __future__ import annotations

import pytest
from test_git_state import checkout, git

from headsweep.errors import UserError
from headsweep.plan import git_state, uncommitted
from headsweep.plan.git_state import code_version
from headsweep.plan.uncommitted import apply, patch_of, with_changes
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_record import RunRecord


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout of its own."""
    root = tmp_path / "project"
    checkout(root)
    for module in (git_state, uncommitted):
        monkeypatch.setattr(module, "PROJECT_ROOT", root)
    uncommitted._warn.cache_clear()
    return root


def record(code) -> RunRecord:
    return RunRecord("f", "g", "n", "s", 0, {}, {}, code, {})


def test_a_clean_tree_stores_nothing(root, tmp_path):
    assert with_changes(code_version(), tmp_path / "outputs") == code_version()
    assert not (tmp_path / "outputs").exists()


def test_the_patch_makes_the_same_files_again(root, tmp_path):
    (root / "conf").mkdir()
    (root / "src" / "code.py").write_text("2\n")
    (root / "src" / "new file.py").write_text("3\n")
    (root / "conf" / "bytes.bin").write_bytes(bytes(range(256)))
    code = with_changes(code_version(), tmp_path / "outputs")
    assert with_changes(code_version(), tmp_path / "outputs") == code, "one file for each content"
    found = record(code)
    found.check()
    patch = patch_of(found, tmp_path / "outputs")
    assert patch is not None and [path.name for path in patch.parent.iterdir()] == [patch.name]
    git(root, "worktree", "add", "-q", "--detach", str(tmp_path / "again"), code["commit"])
    apply(patch, tmp_path / "again")
    for name in ("src/code.py", "src/new file.py", "conf/bytes.bin"):
        assert (tmp_path / "again" / name).read_bytes() == (root / name).read_bytes()
    with pytest.raises(UserError, match=r"git cannot apply it to the recorded commit \(error: "):
        apply(patch, tmp_path / "again")


def test_passwords_in_addresses_are_left_out(root, tmp_path):
    (root / "src" / "code.py").write_text("uri = 'http://anna:secret@host'\n")
    code = with_changes(code_version(), tmp_path)
    text = OutputFolder(tmp_path).patch(code["changes"]).read_text()
    assert "http://anna:***@host" in text and "secret" not in text


def test_a_large_patch_is_not_stored(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(uncommitted, "MOST_BYTES", 100)
    (root / "src" / "code.py").write_text("2" * 1000)
    assert with_changes(code_version(), tmp_path / "outputs") == code_version()
    assert capsys.readouterr().err.startswith("headsweep: uncommitted changes are not recorded: 1,1")


@pytest.mark.parametrize("changes", ["../../etc/passwd", "", 7])
def test_the_record_of_another_person_names_no_other_file(changes):
    with pytest.raises(ValueError, match=r"code\.changes: expected a hash in hexadecimal digits"):
        record({"commit": "a" * 40, "dirty": True, "changes": changes}).check()
