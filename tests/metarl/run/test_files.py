"""Files of a run: written whole under names of their own, never through a link that leads out of the run."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from experiments.cli.video import Mp4
from metarl.errors import RunError, UserError
from metarl.run.directory import Run
from metarl.run.files import is_scratch, scratch_file, write_whole


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file beside the run that nothing must be written to."""
    path = tmp_path / "outside"
    path.write_bytes(b"precious")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create_at(tmp_path / "run", {"seed": 0}, ["metarl"])


def test_a_file_takes_the_place_of_a_link_and_what_it_led_to_is_left_alone(run, outside):
    for name in ("config.json", "progress.json", "progress.csv", "a.png", "checkpoints/latest.pt"):
        (run.path / name).unlink(missing_ok=True)
        (run.path / name).symlink_to(outside)
    run.rewrite_config({"seed": 1})
    run.rewind(0)
    run.log({"a": 1.0}, 5)
    run.close()
    run.save_picture("a", b"picture")
    run.save("latest", {"a": 1})
    assert outside.read_bytes() == b"precious"
    assert not any(path.is_symlink() for path in run.path.rglob("*"))
    assert run.load("latest") == {"a": 1}


def test_a_link_for_a_lock_or_a_folder_is_refused(run, outside, tmp_path):
    (run.path / ".lock").symlink_to(outside)
    with pytest.raises(RunError, match=r"cannot lock .*; must be a file that can be written"), run.lock():
        pytest.fail("the lock was a link")
    (tmp_path / "elsewhere").mkdir()
    (run.path / "videos").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="videos is a symbolic link; must be a folder of the run's own"):
        print(run.videos)
    (run.path / "checkpoints").rmdir()
    (run.path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="checkpoints is a symbolic link"):
        run.save("latest", {"a": 1})
    assert outside.read_bytes() == b"precious"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_lock_keeps_what_the_file_holds(run):
    (run.path / ".lock").write_text("kept")
    with run.lock(), pytest.raises(RunError, match="another process is training"), run.lock():
        pass
    assert (run.path / ".lock").read_text() == "kept"


def test_two_writers_of_one_file_do_not_share_a_scratch_file(tmp_path):
    path = tmp_path / "evaluation.json"
    with scratch_file(path) as one:
        with scratch_file(path) as other:
            assert one != other
            assert is_scratch(one)
            other.write_bytes(b"other")
        one.write_bytes(b"one")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_scratch(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    with pytest.raises(ZeroDivisionError):
        write_whole(path, lambda file: file.write(b"new") / 0)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_training_left_of_a_checkpoint_is_removed_by_the_next(run):
    with scratch_file(run.path / "checkpoints" / "latest.pt") as scratch:
        left = scratch.with_name(scratch.name.replace(".latest", ".latest2"))
    left.write_bytes(b"a part")
    with run.lock():
        assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["latest.pt"]


def test_a_directory_that_was_left_before_it_was_a_run_is_used_again(run):
    (run.path / "config.json").unlink()
    (run.path / ".config.0123.partial.json").write_text("{")
    again = Run.create_at(run.path, {"seed": 7}, ["metarl"])
    assert again.config() == {"seed": 7}
    (run.path / "config.json").unlink()
    (run.path / "checkpoints" / "latest.pt").touch()
    with pytest.raises(RunError, match="is not empty"):
        Run.create_at(run.path, {}, [])


def test_a_checkpoint_that_is_a_pipe_or_a_folder_is_none(run):
    os.mkfifo(run.checkpoint_path("latest"))
    run.checkpoint_path("best").mkdir()
    for name in ("latest", "best"):
        with pytest.raises(RunError, match=f"has no checkpoint named '{name}'; it has none"):
            run.load(name)


def test_a_pipe_is_not_waited_for(run):
    os.mkfifo(run.path / "progress.json")
    with pytest.raises(RunError, match=r"cannot read .*progress.json: not a regular file"):
        run.progress()


def test_a_row_is_written_anew_with_what_it_lacks(run):
    for step in (5, 10):
        run.log({"a": float(step)}, step)
    run.close()
    again = Run.open(run.path)
    again.log_anew({"b": 1.0}, 10)
    again.log_anew({"b": 2.0}, 10)
    again.close()
    rows = [json.loads(line) for line in (run.path / "progress.json").read_text().splitlines()]
    assert [(row.get("a"), row.get("b")) for row in rows] == [(5.0, None), (10.0, 1.0)]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_video_that_cannot_be_played_is_not_made(tmp_path, share):
    film = Mp4(tmp_path / "film.mp4", 25)
    for value in range(8):
        film.add(np.full((64, 64, 3), value, np.uint8))
    film._writer.close()
    (scratch,) = tmp_path.iterdir()
    content = scratch.read_bytes()
    scratch.write_bytes(content[: int(len(content) * share)])  # as a full disk cuts it
    with pytest.raises(UserError, match=r"cannot write .*film.mp4: ffmpeg wrote \d of 8 frames; is the disk full"):
        film.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []
