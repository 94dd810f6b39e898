"""Help texts and docstrings are plain English: every field has a help text that stands alone."""

import ast
import dataclasses
import importlib
import re
from pathlib import Path

import pytest
from tyro._docstrings import get_field_docstring

from agents.catalog import AGENTS
from envs.catalog import FAMILIES
from metarl.fewshot import catalog as fewshot

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("metarl", "agents", "envs", "experiments")
FIELD = re.compile(r"^    \w+: .+? = .*?  # (.+)$", re.MULTILINE)
LEANING = re.compile(r"(of|likewise|the same|these|that|where|which|what)\b")
CLASSES = {**AGENTS, **FAMILIES, **fewshot.LEARNERS, **fewshot.FAMILIES}
OTHERS = {"envs.external.gymnasium_family:GymnasiumFamily", "envs.locomotion.custom_robot:MujocoFamily"}


def sources() -> list[Path]:
    return [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]


def documented(file: Path) -> list[tuple[str, str]]:
    """Public names and their docstrings: of a module and of all that is defined in it."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)]
    found = [(getattr(node, "name", file.stem), ast.get_docstring(node)) for node in nodes]
    return [(name, text) for name, text in found if text and not name.startswith("_")]


def test_no_help_text_leans_on_the_line_above():
    texts = [(file.relative_to(ROOT), text) for file in sources() for text in FIELD.findall(file.read_text())]
    assert len(texts) > 100
    assert not [(file, text) for file, text in texts if LEANING.match(text)]


@pytest.mark.parametrize("path", sorted({*CLASSES.values(), *OTHERS}))
def test_every_field_of_what_the_catalogs_name_has_a_help_text(path):
    module, name = path.split(":")
    pending = [getattr(importlib.import_module(module), name)]
    while pending:
        cls = pending.pop()
        for field in dataclasses.fields(cls):
            assert get_field_docstring(cls, field.name, ()), f"{cls.__name__}.{field.name}"
            value = field.default_factory() if callable(field.default_factory) else field.default
            if dataclasses.is_dataclass(value):
                pending.append(type(value))


def test_public_docstrings_start_with_a_summary():
    found = [(file.relative_to(ROOT), name) for file in sources() for name, text in documented(file)]
    assert len(found) > 1000
    without = [
        (file.relative_to(ROOT), name)
        for file in sources()
        for name, text in documented(file)
        if text.startswith("Raises:")
    ]
    assert not without


@pytest.mark.parametrize(
    "wording", [r"by way of", r"likest", r"for ever", r"steps? an? \w+", r"tasks? a second", r"so to say"]
)
def test_foreign_turns_of_phrase_stay_out(wording):
    """ "forever", "via", "most similar", "steps per second": what an engineer would say."""
    found = re.compile(rf"\b{wording}\b")
    assert not [file.relative_to(ROOT) for file in sources() if found.search(file.read_text())]
