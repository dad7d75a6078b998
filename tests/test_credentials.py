"""A password is in one file that only its user can read, and the address of its store works wherever it is written."""

from __future__ import annotations

import json
import stat
import sys

import pytest

from commands import give
from composing import compose_run
from headsweep import credentials
from headsweep.credentials import redacted, store_password, store_passwords, with_password
from headsweep.errors import ConfigError, UserError

SECRETS = [
    ("http://anna:geheim@host:5000", "http://anna:***@host:5000", "http://host:5000"),
    ("https://anna:ge@heim@host/x", "https://anna:***@host/x", "https://host/x"),
    ("postgresql+psycopg2://anna:geheim@host/db", "postgresql+psycopg2://anna:***@host/db", None),
    ("postgresql://anna:ge/heim@host:5432/db?sslmode=x", "postgresql://anna:***@host:5432/db?sslmode=x", None),
    ("mysql://anna:ge heim@host/db", "mysql://anna:***@host/db", "mysql://anna@host/db"),
    ("postgresql://host/db?user=a&password=geheim&b=c", "postgresql://host/db?user=a&password=***&b=c", None),
    ("http://host/?token=geheim", "http://host/?token=***", "http://host/"),
    ("http://host/#token=geheim", "http://host/#token=***", "http://host/"),
    ("https://geheim@host:5000/x", "https://***@host:5000/x", "https://host:5000/x"),
]
OPEN = [
    "http://host:5000",
    "http://host:5000/a@b",
    "postgresql://anna@host/db",
    "sqlite:////a/b@c.db",
    "http://a:${p}@h",
]


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """The file of passwords; no command has been given in this process yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(credentials, "_known", {})
    return tmp_path / "config" / "headsweep" / "credentials.json"


@pytest.mark.parametrize(("uri", "shown", "bare"), SECRETS)
def test_another_process_connects_by_the_address_as_it_is_shown(uri, shown, bare, file, monkeypatch):
    assert store_password(uri) == shown
    monkeypatch.setattr(credentials, "_known", {})  # another process
    assert with_password(shown) == uri
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.unlink()
    assert bare is None or with_password(shown) == bare  # the environment may have the password then


@pytest.mark.parametrize("uri", OPEN)
def test_an_address_without_a_password_stays_and_nothing_is_kept(uri, file):
    assert (store_password(uri), with_password(uri), file.exists()) == (uri, uri, False)


def test_the_words_of_a_command_are_replaced_where_they_are_addresses_of_stores():
    secret, shown = SECRETS[0][:2]
    given = [
        "-m",
        f"tracking.uri={secret}",
        f"+tracking.uri='{secret}'",
        "--uri",
        secret,
        f"--uri={secret}",
        "a=x?token=1",
    ]
    assert store_passwords(given) == [
        "-m",
        f"tracking.uri={shown}",
        f"+tracking.uri='{shown}'",
        "--uri",
        shown,
        f"--uri={shown}",
        "a=x?token=1",
    ]


def test_all_passwords_of_a_text_are_hidden():
    said = "cannot connect to 'http://a:geheim@h' nor to postgresql://b:geheim@h/db?password=geheim"
    assert redacted(said) == "cannot connect to 'http://a:***@h' nor to postgresql://b:***@h/db?password=***"


def test_a_new_password_replaces_the_old_and_others_stay(file):
    for uri in ("http://a:old@h", "http://b:other@h", "http://a:new@h"):
        store_password(uri)
    assert json.loads(file.read_text()) == {"http://a:***@h": "http://a:new@h", "http://b:***@h": "http://b:other@h"}


def test_a_configuration_holds_no_password(file):
    run = compose_run("tracking.uri=http://anna:geheim@host")
    assert run.tracking.uri == "http://anna:***@host"
    assert with_password(run.tracking.uri) == "http://anna:geheim@host"
    with pytest.raises(ConfigError) as mistake:
        compose_run("tracking.uri=ftp://anna:geheim@host")
    assert "geheim" not in str(mistake.value)


def test_where_it_cannot_be_kept_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"tracking.uri=http://a:\*\*\*@h: .*credentials.json cannot store") as mistake:
        store_password("http://a:geheim@h")
    assert "\n" not in str(mistake.value) and "geheim" not in str(mistake.value)


def test_a_damaged_file_is_one_line(file):
    file.parent.mkdir(parents=True)
    file.write_text("{")
    with pytest.raises(UserError, match=r"credentials\.json cannot be read"):
        with_password("http://a:***@h")


def test_a_command_that_fails_does_not_print_it(tmp_path, capsys):
    assert give("sync", "--output", tmp_path, "--uri", "http://anna:geheim@host") == 2
    assert "geheim" not in "".join(capsys.readouterr())
    assert not any("geheim" in word for word in sys.argv)
