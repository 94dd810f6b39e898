"""The `metarl` command in this process, as tests call it."""

import pytest

from experiments.cli.main import main


def run(capsys, *words: str) -> tuple[int, str, str]:
    """Exit status, output and errors of one command line."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    output, errors = capsys.readouterr()
    return int(stop.value.code or 0), output, errors
