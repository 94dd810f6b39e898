"""A recipe from a file of the user's own, wherever it lies, with the modules in its folder."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import cloudpickle

from experiments.experiment.config_json import MOVED, RENAMED
from experiments.experiment.kept_code import KeptModules
from metarl._packages import OUR_PACKAGES
from metarl.errors import UserError
from metarl.run.kept_files import KeptRecord

RECIPE_MODULE = "metarl_recipe"  # what such a recipe is called in sys.modules

_imported: set[str] = set()  # modules that were imported for a recipe, from its folder or from the copies of a run


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
    try:
        with importable(path.parent):
            sys.modules[RECIPE_MODULE] = module  # where dataclasses and pydantic look up the names in annotations
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _does_not_load(path, error) from error
    return module


def load_kept(kept: KeptRecord) -> ModuleType:
    """Run the copy of a recipe that a run keeps; the user's modules that it imports are copies, too.

    Raises:
        UserError: when a copy is missing or is not what was kept, or the recipe fails.
    """
    name = kept.record.module
    own = kept.record.file_of(name)
    if name is None or own is None:
        raise UserError(f"{kept.folder} keeps no recipe; name one with --recipe PATH")
    modules = KeptModules(kept)
    _forget({*_imported, *modules.names})
    _imported.update(modules.names)
    sys.meta_path.insert(0, modules)
    try:
        recipe = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _does_not_load(kept.copy_of(own), error) from error
    for module in modules.names:  # a worker process would not find them by their names
        if module in sys.modules:
            cloudpickle.register_pickle_by_value(sys.modules[module])
    return recipe


def imported_modules() -> frozenset[str]:
    """The modules that the recipe file which was loaded last has imported from its folder, in whatever way."""
    return frozenset(_imported)


def _does_not_load(recipe: Path, error: BaseException) -> UserError:
    """What to raise when a recipe fails with an error."""
    message = getattr(error, "msg", None) or str(error)  # a syntax error's text would repeat its place
    what = f"{type(error).__name__}{_place(error, recipe)}{': ' if message else ''}{message}"
    return UserError(f"recipe {recipe} does not load: {what}{_hint(error, recipe.parent)}")


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules in a folder be imported, before any other of their name but those of our own packages.

    A folder of the same name as one of ours adds to it the modules that it lacks, such as `envs.my_env`. Modules that
    were imported for another recipe, or for this one before it was edited, are forgotten; no compiled ones are kept, as
    Python takes these for current within the second of an edit.
    """
    folder = folder.resolve()
    ours = [importlib.import_module(package) for package in OUR_PACKAGES]
    _forget(set(_imported))
    before = set(sys.modules)
    importlib.invalidate_caches()
    writes_nothing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(folder))
    for package in ours:
        package.__path__.append(str(folder / package.__name__))
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_nothing
        with contextlib.suppress(ValueError):  # where the recipe took it away itself
            sys.path.remove(str(folder))
        for package in ours:
            package.__path__.pop()
        new = [name for name in set(sys.modules) - before if _is_the_users(folder, name)]
        _imported.update(new)
        for name in new:  # a worker process would not find it by its name
            cloudpickle.register_pickle_by_value(sys.modules[name])


def _forget(names: Iterable[str]) -> None:
    """Import these modules anew when they are next asked for, and none of the copies that a run keeps."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, KeptModules)]
    for name in names:
        _imported.discard(name)
        module = sys.modules.pop(name, None)
        parent, _, child = name.rpartition(".")
        if module is not None and vars(sys.modules.get(parent, module)).get(child) is module:
            delattr(sys.modules[parent], child)  # or `from parent import child` would find it still


def _is_the_users(folder: Path, module: str) -> bool:
    """Whether a module, or the package that it is in, lies in a folder itself and is not ours."""
    top = module.split(".")[0]
    if top == RECIPE_MODULE:
        return False
    ours = sys.modules[top].__file__ if top in OUR_PACKAGES else None
    file = getattr(sys.modules.get(top if ours is None else module), "__file__", None)
    if file is None:
        return False
    path = Path(file).resolve()
    if ours is not None:
        return path.is_relative_to(folder / top) and not path.is_relative_to(Path(ours).resolve().parent)
    return folder in (path.parent, path.parent.parent if path.stem == "__init__" else None)


def _hint(error: BaseException, folder: Path) -> str:
    """What explains an error: a former name, or a package of the user's with the name of one of ours."""
    keyword = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if isinstance(error, TypeError) and keyword is not None:
        new = [names.get(keyword[2]) for path, names in RENAMED.items() if path.endswith(f":{keyword[1]}")]
        return f"; it is {new[0]} now" if new and new[0] else ""
    if not isinstance(error, (ImportError, AttributeError)):
        return ""
    if isinstance(error, ImportError) and error.name in MOVED:
        return f"; it is {MOVED[error.name]} now"
    classes = {path.partition(":")[2]: module for path, module in MOVED.items() if path.startswith(f"{error.name}:")}
    if isinstance(error, ImportError) and classes:
        return "; " + ", ".join(f"{name} is in {module}" for name, module in classes.items()) + " now"
    named = re.search(rf"'({'|'.join(OUR_PACKAGES)})[.']", str(error))
    if named is None:
        return ""
    theirs = [place for place in (folder / named[1], folder / f"{named[1]}.py") if place.exists()]
    ours = Path(str(sys.modules[named[1]].__file__)).resolve().parent
    if not theirs or theirs[0].resolve() == ours:
        return ""
    return f"; {named[1]} is MetaRL's own package here, and {theirs[0]} only adds modules to it: rename the latter"


def _place(error: BaseException, recipe: Path) -> str:
    """The line of the recipe that an error comes from, and that of the neighbouring module where it was raised."""
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
