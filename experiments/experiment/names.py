"""Everything that has a name, found by reading folders and source text without imports, so it is instant.

An installed package adds recipes by entry points. In its pyproject.toml:

    [project.entry-points."metarl.recipes"]
    "my_family/my_agent" = "my_package.my_recipe"
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
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
FUNCTION_FAMILIES = _catalog("metarl/fewshot/catalog.py", "FAMILIES")  # families of supervised tasks
LEARNERS = _catalog("metarl/fewshot/catalog.py", "LEARNERS")
OUR_CLASSES = frozenset(
    path for catalog in (FAMILIES, FUNCTION_FAMILIES, AGENTS, LEARNERS) for path in catalog.values()
)


ENTRY_POINTS = "metarl.recipes"  # the group in which installed packages name the modules of their recipes


@cache
def experiment_names() -> tuple[str, ...]:
    """All recipes, as `family/recipe`: ours, and those of installed packages."""
    return tuple(sorted({*_own_names(), *installed_recipes()}))


@cache
def _own_names() -> frozenset[str]:
    files = (_ROOT / "experiments" / "recipes").glob("*/[!_]*.py")
    return frozenset(f"{file.parent.name}/{file.stem}" for file in files)


@cache
def installed_recipes() -> dict[str, EntryPoint]:
    """Recipes that installed packages offer by the entry-point group, by name; one of our names stays ours."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS) if point.name not in _own_names()}


@cache
def trained_agents() -> dict[str, Path]:
    """The archives of the trained agents that come with MetaRL, by the names of the experiments that they are of."""
    folder = _ROOT / "agents" / "trained"
    return {f"{file.parent.name}/{file.stem}": file for file in sorted(folder.glob("*/*.zip"))}


@cache
def benchmark_names() -> tuple[str, ...]:
    """All benchmarks: the modules of experiments/benchmarks that define `main`."""
    files = sorted((_ROOT / "experiments" / "benchmarks").glob("[!_]*.py"))
    return tuple(file.stem for file in files if "\ndef main(" in file.read_text())


def describe(module: str, class_name: str | None = None) -> str:
    """The first line of the docstring of a module of ours, or of a class in it."""
    file = _ROOT / f"{module.replace('.', '/')}.py"
    return _described_in(file, class_name) if file.is_file() else ""


def _described_in(file: Path, class_name: str | None = None) -> str:
    tree = ast.parse(file.read_text())
    nodes = [tree] if class_name is None else [node for node in tree.body if getattr(node, "name", None) == class_name]
    docstring = ast.get_docstring(nodes[0]) if nodes and isinstance(nodes[0], (ast.Module, ast.ClassDef)) else None
    return docstring.splitlines()[0] if docstring else ""


def described(kind: str) -> dict[str, str]:
    """Name and description of all families, agents, learners, experiments or trained agents."""
    if kind == "experiments":
        return {name: _described_experiment(name) for name in experiment_names()}
    if kind == "trained":
        return {name: _described_experiment(name) for name in trained_agents()}
    catalogs = {"families": FAMILIES | FUNCTION_FAMILIES, "agents": AGENTS, "learners": LEARNERS}
    catalog = catalogs[kind]
    return {name: describe(*where.split(":")) for name, where in catalog.items()}


def in_columns(described: Mapping[str, str]) -> list[str]:
    """Lines of names and descriptions, aligned to the longest name."""
    width = max((len(name) for name in described), default=0)
    return [f"  {name:<{width}}  {description}".rstrip() for name, description in described.items()]


def _described_experiment(name: str) -> str:
    """The first line of a recipe's docstring; where that cannot be found, the package that the recipe comes from."""
    if name in _own_names():
        return describe(f"experiments.recipes.{name.replace('/', '.')}")
    point = installed_recipes()[name]
    try:
        file = _source_of(point.module)
        description = "" if file is None else _described_in(file)
    except (OSError, ValueError, SyntaxError, ImportError):
        description = ""
    return description or f"from {point.dist.name if point.dist is not None else point.module}"


def _source_of(module: str) -> Path | None:
    """The file of a module that is not imported, and neither is a package that it is in."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return None if spec.origin is None else Path(spec.origin)
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def suggestion(name: str, names: Iterable[str]) -> str:
    """The hint for an unknown name."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"must be one of {', '.join(names)}" if names else "there is none"


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
