"""A recipe from a file of the user's own, wherever it lies, with the modules that lie beside it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from metarl.errors import UserError

RECIPE_MODULE = "metarl_recipe"  # what such a recipe is called in sys.modules
_OURS = ("metarl", "envs", "agents", "experiments")

_neighbours: dict[str, Path] = {}  # modules that were imported from beside a recipe, and their folder


def load_file(path: Path) -> ModuleType:
    """Run a recipe's file.

    Raises:
        UserError: when there is none or it fails; names the error and the line of the recipe.
    """
    if not path.is_file():
        raise UserError(f"there is no recipe at {path}: no such file")
    spec = importlib.util.spec_from_file_location(RECIPE_MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[RECIPE_MODULE] = module  # where dataclasses and pydantic look up the names in annotations
    try:
        with importable(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        message = getattr(error, "msg", None) or str(error)  # a syntax error's text would repeat its place
        what = f"{type(error).__name__}{_place(error, path)}{': ' if message else ''}{message}"
        raise UserError(f"recipe {path} does not load: {what}") from error
    return module


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules in a folder be imported, before any other of their name but our own packages.

    Modules from beside another recipe are forgotten, as this one may have some of the same names.
    """
    for package in _OURS:
        importlib.import_module(package)  # whatever has its name in the folder does not get it
    folder = folder.resolve()
    for name in [name for name, origin in _neighbours.items() if origin != folder]:
        del _neighbours[name]
        sys.modules.pop(name, None)
    before = set(sys.modules)
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # where the recipe took it away itself
            sys.path.remove(str(folder))
        _neighbours.update({name: folder for name in set(sys.modules) - before if _is_beside(folder, name)})


def _is_beside(folder: Path, module: str) -> bool:
    """Whether a module, or the package that it is in, lies in a folder itself and is not ours."""
    package = module.split(".")[0]
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None or package in (*_OURS, RECIPE_MODULE):
        return False
    path = Path(file).resolve()
    return folder in (path.parent, path.parent.parent if path.stem == "__init__" else None)


def _place(error: BaseException, recipe: Path) -> str:
    """The line of the recipe that an error comes from, and that of the module beside it where it was raised."""
    lines = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        lines.append((Path(error.filename), error.lineno))
    beside = [(file, line) for file, line in lines if file.resolve().parent == recipe.resolve().parent]
    in_recipe = [line for file, line in beside if file.resolve() == recipe.resolve()]
    if not in_recipe:
        return ""
    file, line = beside[-1]
    return f" in line {in_recipe[-1]}" + (
        f" (line {line} of {file.name})" if file.resolve() != recipe.resolve() else ""
    )
