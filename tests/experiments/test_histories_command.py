"""The command that writes learning histories."""

import pytest

from tests.experiments.command import run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "test"], "split is 'test'; must be train: what learns from histories must not know other tasks"),
        (["--tasks", "0"], "--tasks is 0; must be at least 1"),
        (["--episodes", "0"], "--episodes is 0; must be at least 1"),
    ],
)
def test_what_it_does_not_write_is_refused_in_a_line(capsys, tmp_path, options, message):
    status, _, error = run(capsys, "histories", "grid_navi/rl2", "--out", str(tmp_path / "out"), *options)
    assert status == 2
    assert error == f"metarl: {message}\n"
    assert not (tmp_path / "out").exists()


def test_a_trained_agent_that_comes_along_writes_its_trials(capsys, tmp_path):
    pytest.importorskip("h5py")
    out = str(tmp_path / "out")
    status, output, _ = run(capsys, "histories", "grid_navi/rl2", "--out", out, "--tasks", "3", "--episodes", "2")
    assert status == 0
    assert f"Saved: {out} (3 histories, 6 episodes)" in output
    status, _, error = run(capsys, "histories", "grid_navi/rl2", "--out", out, "--tasks", "3")
    assert (status, error) == (2, f"metarl: {out} already holds a dataset; choose another folder\n")
