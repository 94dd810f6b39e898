"""The comment on a field becomes its help text, so it is a noun phrase that stands alone."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIELD = re.compile(r"^    \w+: .+? = .*?  # (.+)$", re.MULTILINE)
LEANING = re.compile(r"(of|likewise|the same|these|that)\b")


def test_no_help_text_leans_on_the_line_above():
    texts = [
        (file.relative_to(ROOT), text)
        for package in ("metarl", "agents", "envs", "experiments")
        for file in (ROOT / package).rglob("*.py")
        for text in FIELD.findall(file.read_text())
    ]
    assert len(texts) > 100
    assert not [(file, text) for file, text in texts if LEANING.match(text)]
