"""The `metarl` command in this process, as tests call it."""

from pathlib import Path

import pytest

from experiments.cli.main import main


def run(capsys, *words: str) -> tuple[int, str, str]:
    """Exit status, output and errors of one command line."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    output, errors = capsys.readouterr()
    return int(stop.value.code or 0), output, errors


def finished_run(recipe: str, folder: Path) -> Path:
    """The run of a recipe, given as text, that `metarl train` has finished in a folder."""
    (folder / "recipe.py").write_text(recipe)
    with pytest.raises(SystemExit) as stop:
        main(["train", str(folder / "recipe.py"), "--run-dir", str(folder / "run")])
    assert not stop.value.code
    return folder / "run"
