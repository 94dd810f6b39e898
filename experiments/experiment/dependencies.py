"""What an experiment is made from: the user's modules, the files of robots and the images of data sets."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import math
import sys
import sysconfig
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from envs.simulators.mjcf_files import files_of
from experiments.experiment.recipe_file import RECIPE_MODULE, imported_modules
from metarl._packages import OUR_PACKAGES
from metarl.fewshot.images.family import ImageFamily

_HOME = Path(__file__).resolve().parents[2]  # the folder that holds our packages
_OURS = tuple(_HOME / package for package in OUR_PACKAGES)
_RECIPES = _HOME / "experiments" / "recipes"  # which users write too
_ROBOTS = (".xml", ".urdf")  # names of files that describe robots
_INSTALLED = ("site-packages", "dist-packages")  # folders of packages that are known by their version
_MOST_BYTES = 4_000_000_000  # of the images of a split that are hashed; of more, evenly spaced ones


def files_behind(experiment: Any, recipe_module: str | None) -> dict[Path, str | None]:
    """The files that decide what an experiment is, with the names of those that are modules.

    recipe_module: the name of the recipe's module; None for an experiment made in Python, where the modules of its
    classes and functions are where the search begins.
    """
    parts = list(_parts(experiment, "experiment"))
    roots = sorted({_module_of(part) for _, part in parts}) if recipe_module is None else [recipe_module]
    if recipe_module == RECIPE_MODULE:
        roots += sorted(imported_modules())
    package = None if recipe_module is None else _package_around(recipe_module)
    modules: dict[Path, str | None] = {path: name for name, path in _user_modules(roots, package).items()}
    robots = {file: None for _, part in parts for path in _mjcf(part) for file in files_of(path)}
    return modules | robots


def data_behind(experiment: Any) -> dict[str, str]:
    """The sha256 of the images that training and test tasks are drawn from, by the name of the family that reads them.

    Raises:
        ValueError, DataError: what reading the images raises.
    """
    return {name: _digest(part) for name, part in _parts(experiment, "") if isinstance(part, ImageFamily)}


def _parts(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """A value and everything in it, by dotted name."""
    yield name, value
    inner: Mapping[str, Any] = {}
    if is_dataclass(value) and not isinstance(value, type):
        inner = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, Mapping):
        inner = {str(key): item for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        inner = {str(index): item for index, item in enumerate(value)}
    for key, item in inner.items():
        yield from _parts(item, f"{name}.{key}" if name else key)


def _mjcf(value: Any) -> Iterator[Path]:
    """The MJCF or URDF file that a value names, if it names one."""
    if isinstance(value, (str, Path)) and Path(value).suffix in _ROBOTS and Path(value).is_file():
        yield Path(value)


def _module_of(value: Any) -> str:
    """The module that a class, or that of a value, or a function comes from."""
    owner = value if isinstance(value, type) or callable(value) else type(value)
    return str(getattr(owner, "__module__", None))


def _package_around(recipe_module: str) -> Path | None:
    """The folder of the installed package that brings a recipe; None for a recipe of ours or from a file."""
    top = recipe_module.split(".")[0]
    file = Path(getattr(sys.modules.get(top), "__file__", None) or "")
    return file.absolute().parent if file.name == "__init__.py" and top not in OUR_PACKAGES else None


def _user_modules(roots: Iterable[str], package: Path | None) -> dict[str, Path]:
    """The files of these modules that are the user's, and of all of the user's that they import, by name.

    package: the folder of an installed package whose modules count among them.
    """
    found: dict[str, Path] = {}
    waiting = deque(roots)
    while waiting:
        name = waiting.popleft()
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if name in found or file is None or not _is_the_users(Path(file), package):
            continue
        found[name] = Path(file).absolute()
        waiting += _imported_by(found[name], getattr(module, "__package__", None) or "")
    return found


def _is_the_users(file: Path, package: Path | None) -> bool:
    """Whether a module's file is source text that is neither Python's, nor another installed package's, nor ours."""
    file = file.absolute()
    if file.suffix != ".py" or not file.is_file():
        return False
    if file.is_relative_to(_RECIPES) or (package is not None and file.is_relative_to(package)):
        return True
    if any(part in _INSTALLED for part in file.parts):
        return False
    paths = sysconfig.get_paths()
    return not any(file.is_relative_to(place) for place in (paths["stdlib"], paths["platstdlib"], *_OURS))


def _imported_by(file: Path, package: str) -> Iterator[str]:
    """Names of modules that a file's import statements may mean, with the packages around them."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # more dots than there are packages
                continue
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def _digest(family: ImageFamily) -> str:
    digest = hashlib.sha256()
    for split in ("train", "test"):
        source = family.pool(split).source
        digest.update(repr((split, source.names, source.counts.tolist(), tuple(source.images.shape))).encode())
        images = source.images.numpy()
        for image in images[:: max(1, math.ceil(images.nbytes / _MOST_BYTES))]:
            digest.update(image.tobytes())
    return digest.hexdigest()
