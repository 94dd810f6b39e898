"""Output for consoles of any encoding: what one cannot show is written in its plainest form, "RL2" for "RL²"."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

PLAINER = "metarl.plainer"  # the name of the error handler
_PLAIN = {"×": "x", "–": "-", "—": "-", "−": "-", "·": "-", "…": "...", "≤": "<=", "≥": ">=", "→": "->", "│": "|"}


def show_in_any_encoding() -> None:
    """Let no character that a console's encoding lacks end a command; for standard output and errors."""
    codecs.register_error(PLAINER, _plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAINER)


def _plainer(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler of `codecs`: the characters without accents and exponents; "?" for what has no plain form."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_plain(character) for character in characters), error.end


def _plain(character: str) -> str:
    decomposed = unicodedata.normalize("NFKD", _PLAIN.get(character, character))
    return decomposed.encode("ascii", "ignore").decode() or "?"
