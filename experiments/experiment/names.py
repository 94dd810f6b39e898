"""What can be asked for by name, found by reading folders and source text: nothing is imported, so it is instant."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from metarl.errors import UserError

_ROOT = Path(__file__).resolve().parents[2]  # the folder that holds the four packages
_ALIASES = {"bandit": "bernoulli_bandit"}  # short family names


def _catalog(file: str, name: str) -> dict[str, str]:
    """A dict literal from a module that is not imported."""
    for node in ast.parse((_ROOT / file).read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)  # type: ignore[attr-defined]
    raise LookupError(f"{file} defines no {name}")


FAMILIES = _catalog("envs/catalog.py", "FAMILIES")
AGENTS = _catalog("agents/catalog.py", "AGENTS")
FUNCTION_FAMILIES = _catalog("metarl/fewshot/catalog.py", "FAMILIES")  # of functions to regress, not of worlds
LEARNERS = _catalog("metarl/fewshot/catalog.py", "LEARNERS")


@cache
def experiment_names() -> tuple[str, ...]:
    """All recipes, as `family/recipe`."""
    files = (_ROOT / "experiments" / "recipes").glob("*/[!_]*.py")
    return tuple(sorted(f"{file.parent.name}/{file.stem}" for file in files))


@cache
def benchmark_names() -> tuple[str, ...]:
    """All benchmarks: the modules of experiments/benchmarks that define `main`."""
    files = sorted((_ROOT / "experiments" / "benchmarks").glob("[!_]*.py"))
    return tuple(file.stem for file in files if "\ndef main(" in file.read_text())


def describe(module: str, class_name: str | None = None) -> str:
    """The first line of the docstring of a module of ours, or of a class in it."""
    file = _ROOT / f"{module.replace('.', '/')}.py"
    if not file.is_file():
        return ""
    tree = ast.parse(file.read_text())
    nodes = [tree] if class_name is None else [node for node in tree.body if getattr(node, "name", None) == class_name]
    docstring = ast.get_docstring(nodes[0]) if nodes and isinstance(nodes[0], (ast.Module, ast.ClassDef)) else None
    return docstring.splitlines()[0] if docstring else ""


def described(kind: str) -> dict[str, str]:
    """Name and description of all families, agents, learners or experiments."""
    if kind == "experiments":
        return {name: describe(f"experiments.recipes.{name.replace('/', '.')}") for name in experiment_names()}
    catalogs = {"families": FAMILIES | FUNCTION_FAMILIES, "agents": AGENTS, "learners": LEARNERS}
    catalog = catalogs[kind]
    return {name: describe(*where.split(":")) for name, where in catalog.items()}


def suggestion(name: str, names: Iterable[str]) -> str:
    """What to say of a name that is not among these."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"allowed are {', '.join(names) or 'none'}"


def known(kind: str, name: str, names: Iterable[str]) -> str:
    """The name, once it is certain to be one of these; short family names are spelt out.

    Raises:
        UserError: when it is not, with the nearest one.
    """
    names = list(names)
    family, slash, rest = name.partition("/")
    full = f"{_ALIASES.get(family, family)}{slash}{rest}"
    if full not in names:
        short = [alias for alias, family in _ALIASES.items() if family in names]
        raise UserError(f"unknown {kind} {name!r}: {suggestion(full, [*names, *short])}")
    return full
