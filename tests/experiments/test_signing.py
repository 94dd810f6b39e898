"""The key that a user's own runs are signed with."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.experiment.trust import is_signed, key_file, signed
from metarl.run.kept_files import CodeRecord, KeptFile

RECORD = CodeRecord("/a/recipe.py", "metarl_recipe", 0, (KeptFile("/a/recipe.py", "12ab", "files/recipe.py"),))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_a_record_is_signed_by_a_key_that_only_the_user_can_read():
    assert not is_signed(RECORD)
    assert is_signed(signed(RECORD))
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    assert [path.name for path in key_file().parent.iterdir()] == ["key"]


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": "/a/other.py"},
        {"module": "other"},
        {"iteration": 1},
        {"files": ()},
        {"files": (replace(RECORD.files[0], sha256="12ac"),)},
        {"files": (replace(RECORD.files[0], copy="files/other.py"),)},
        {"data": {"family": "0"}},
        {"signature": ""},
        {"signature": "é"},
    ],
)
def test_a_record_that_was_changed_is_not_signed(change):
    assert not is_signed(replace(signed(RECORD), **change))


def test_another_users_signature_is_none(home, monkeypatch):
    theirs = signed(RECORD)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "other"))
    assert not is_signed(theirs)
    assert signed(RECORD).signature != theirs.signature


def test_many_at_once_make_one_key():
    with ThreadPoolExecutor(8) as threads:
        records = list(threads.map(lambda _: signed(RECORD), range(16)))
    assert len({record.signature for record in records}) == 1


@pytest.mark.parametrize("where", ["file", "short"])
def test_without_a_key_nothing_is_signed(home, monkeypatch, where):
    if where == "file":
        (home / "config").write_text("")
    else:
        key_file().parent.mkdir(parents=True)
        key_file().write_bytes(b"short")
    assert signed(RECORD).signature == ""
    assert not is_signed(RECORD)


def test_a_user_without_a_home_has_no_key(monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert signed(RECORD).signature == ""
