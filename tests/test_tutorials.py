"""The tutorials: their blocks run as they stand, in order, in an empty directory."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.learn
@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_a_tutorials_blocks_run(page, tmp_path):
    blocks = re.findall(r"```(python|bash)\n(.+?)```", page.read_text(), re.DOTALL)
    assert blocks
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for kind, text in blocks:
        command = f'metarl() {{ "{sys.executable}" -m experiments "$@"; }}\nset -e\n{text}'
        words = [sys.executable, "-c", text] if kind == "python" else ["bash", "-c", command]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
