"""The archive of a trained agent: what it keeps, and that one from anywhere can do nothing but be refused in a line."""

import contextlib
import io
import json
import pickle
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.errors import RunError
from metarl.run import archive
from metarl.run.archive import PackedRun, write_archive
from metarl.run.directory import Run

STATE = {
    "iteration": 3,
    "agent": {
        "net": {"0.weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(5)},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "penalties": [0.5, None, True, "text"],
    },
    "generators": {"env": torch.zeros(16, dtype=torch.uint8)},
}


def written(path: Path) -> Path:
    write_archive(path, card="# card", config={"seed": 1}, meta={}, state=STATE, evaluations={"test": {"points": []}})
    return path


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewritten(path: Path, *more: tuple[str | zipfile.ZipInfo, bytes], **changed: bytes) -> Path:
    """The archive with other contents for some members (dots in names are given as __), and with more members."""
    members = members_of(path) | {name.replace("__", "."): content for name, content in changed.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in (*members.items(), *more):
            file.writestr(name, content)
    return path


def test_an_archive_has_the_state_without_optimisers_and_random_streams(tmp_path):
    run = Run.open(written(tmp_path / "a.zip"))
    state = run.load("latest")
    assert run.is_packed
    assert state["iteration"] == 3
    assert state["generators"] == {}
    assert set(state["agent"]) == {"net", "penalties"}
    assert state["agent"]["penalties"] == [0.5, None, True, "text"]
    for name, tensor in STATE["agent"]["net"].items():
        assert torch.equal(state["agent"]["net"][name], tensor)
        assert state["agent"]["net"][name].dtype == tensor.dtype
    assert run.config() == {"seed": 1}
    assert isinstance(run, PackedRun)
    assert (run.card, run.evaluation("test")) == ("# card", {"points": []})


def test_the_same_agent_gives_the_same_bytes(tmp_path):
    assert written(tmp_path / "a.zip").read_bytes() == written(tmp_path / "b.zip").read_bytes()


def test_what_numbers_cannot_hold_is_not_packed(tmp_path):
    with pytest.raises(RunError, match=r"agent\.what cannot be packed: it is a object"):
        write_archive(
            tmp_path / "a.zip", card="", config={}, meta={}, state={"agent": {"what": object()}}, evaluations={}
        )
    with pytest.raises(RunError, match=r"w cannot be packed: .*BFloat16"):
        write_archive(
            tmp_path / "a.zip", card="", config={}, meta={}, state={"w": torch.zeros(1).bfloat16()}, evaluations={}
        )
    assert not list(tmp_path.iterdir())


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("../config.json", b""), r"holds '../config.json'; an archive has only"),
        (("/etc/passwd", b""), r"holds '/etc/passwd'; an archive has only"),
        (("tensors/../../x.npy", b""), r"holds 'tensors/../../x.npy'; an archive has only"),
        (("code/0/record.json", b"{}"), r"holds 'code/0/record.json'; an archive has only"),
        ((link("evaluations/ood.json"), b"/etc/passwd"), r"'evaluations/ood.json', which is a link"),
        (("tensors/w.npy", b""), r"state.json does not name tensors/w.npy"),
    ],
)
def test_a_strange_member_is_refused_by_name(tmp_path, member, message):
    path = rewritten(written(tmp_path / "a.zip"), member)
    with pytest.raises(RunError, match=message):
        Run.open(path).load("best")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path):
    path = rewritten(written(tmp_path / "a.zip"), ("config.json", b"{}"))
    with pytest.raises(RunError, match=r"holds 'config\.json' twice"):
        Run.open(path)


def test_what_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    path = rewritten(written(tmp_path / "a.zip"), ("evaluations/ood.json", bytes(3_000_000)))
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(archive, "LARGEST_TEXT", 1_000_000)
    with pytest.raises(RunError, match=r"evaluations/ood.json has 3,000,000 bytes; must have at most 1,000,000"):
        PackedRun(path)._read("evaluations/ood.json", archive.LARGEST_TEXT)
    monkeypatch.setattr(archive, "LARGEST_ARCHIVE", 2_000_000)
    with pytest.raises(RunError, match=r"bytes unpacked; must have at most 2,000,000"):
        PackedRun(path)


def test_a_member_that_lies_about_its_size_is_not_read_beyond_it(tmp_path):
    path = rewritten(written(tmp_path / "a.zip"), ("evaluations/ood.json", bytes(3_000_000)))
    content = path.read_bytes()
    size = (3_000_000).to_bytes(4, "little")
    path.write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(RunError, match="cannot read"):
        PackedRun(path).evaluation("ood")


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


class Payload:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Payload()), "is not a tensor"),
        (header("(2, 3)", "'|O'") + pickle.dumps([Payload()] * 6), r"type object; must be plain numbers"),
        (header("(1000000, 1000000)") + bytes(24), r"does not fit its 24 bytes"),
        (header("(2, 3)") + bytes(23), r"does not fit its 23 bytes"),
        (header("(-2, -3)") + bytes(24), r"does not fit its 24 bytes"),
        (b"", "is not a tensor"),
    ],
)
def test_a_tensor_is_numbers_of_the_size_that_it_says(tmp_path, capsys, content, message):
    path = rewritten(written(tmp_path / "a.zip"), **{"tensors/agent.net.0.weight__npy": content})
    with pytest.raises(RunError, match=message):
        Run.open(path).load("best")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (b"[1]", r"state.json holds a list; must hold one object"),
        (b"{", r"cannot read .*state.json"),
        (b"[" * 100_000, r"cannot read .*state.json"),
        (json.dumps({"a": {"tensor": "no"}}).encode(), r"names the tensor 'no', which is not there"),
        (json.dumps({"a": {"tensor": ["x"]}}).encode(), r"names the tensor \['x'\], which is not there"),
        (json.dumps({"a": [{"tensor": "agent.net.count"}] * 2}).encode(), r"which is not there, or twice"),
    ],
)
def test_a_state_names_each_tensor_once(tmp_path, state, message):
    path = rewritten(written(tmp_path / "a.zip"), state__json=state)
    with pytest.raises(RunError, match=message):
        Run.open(path).load("best")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip file", bytes(1000)])
def test_a_file_of_another_kind_is_not_an_archive(tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"a.zip is not the archive of a trained agent"):
        Run.open(path)


def test_a_damaged_archive_is_refused_or_read_wherever_it_is_damaged(tmp_path):
    content = written(tmp_path / "a.zip").read_bytes()
    noise = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[noise.integers(len(content))] ^= int(noise.integers(1, 256))
        (tmp_path / "b.zip").write_bytes(bytes(damaged))
        with contextlib.suppress(RunError):
            run = Run.open(tmp_path / "b.zip")
            run.config()
            run.load("best")
    with io.BytesIO(content[: len(content) // 2]) as half:
        (tmp_path / "b.zip").write_bytes(half.read())
    with pytest.raises(RunError, match="not the archive"):
        Run.open(tmp_path / "b.zip")
