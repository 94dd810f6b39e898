"""Reading a run: its experiment, and the code that it needs.

Most runs need none of the user's code: config.json names classes of our catalogs, and holds every field. The others
need their recipe again, for a function or a class. The code to run is chosen as follows:

1. A recipe that is installed, or that the user names (`recipe`), is run.
2. The recipe that a run names, and the copies that it keeps, are run if the run has this user's signature, which means
   that the user has run exactly this code before, or with `trust`.
3. If files differ from those of the training, the user chooses between the two.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.experiment.code_choice import CodeChoice
from experiments.experiment.definition import (
    IN_PYTHON,
    Experiment,
    experiment_in,
    from_config,
    load,
    module_of,
    needs_recipe,
    recipe_name,
    to_config,
)
from experiments.experiment.dependencies import data_behind, files_behind
from experiments.experiment.recipe_file import load_kept
from experiments.experiment.trust import is_signed, signed
from metarl.errors import UserError
from metarl.run.directory import Run
from metarl.run.kept_files import (
    CodeRecord,
    KeptFile,
    KeptRecord,
    as_files,
    differing,
    keep,
    last_record,
    number_of_records,
)

AS_TRAINED = "as trained"  # the code and data of an evaluation


@dataclass(frozen=True)
class ReadRun:
    """A run's experiment, and the code with which it was read."""

    experiment: Experiment[Any, Any]
    recipe: str  # its name or path
    code: str  # "as trained", "unknown" for runs that keep no record, or what has changed: "changed: crane.py"
    has_changed: bool  # whether something is not as it was in training
    is_moved: bool  # whether the recipe is not the one that the run names
    kept: KeptRecord | None  # what the run keeps of its code; None for runs of earlier versions


def read(run: Run, choice: CodeChoice | None = None) -> ReadRun:
    """Read a run.

    Raises:
        UserError: when it cannot be read, needs code that may not be run, or something differs and no choice was made.
    """
    choice = CodeChoice() if choice is None else choice
    choice.check()
    config = run.config()
    name = recipe_name(config, run.path)
    kept = last_record(run.path)
    changed: list[str] = []
    if needs_recipe(config):
        places = _places(run, name, kept, choice)
        if kept is not None and not choice.as_trained:
            changed = differing(kept.record.files, places)
            _refuse_unless_chosen(run, changed, choice)
        resolved = {str(Path(path).resolve()): place for path, place in places.items()}  # as paths are in config.json
        config = _moved(config, {**places, **resolved})
        experiment = from_config(config, run.path, _loader(name, kept, choice), any_environment=choice.trust)
    else:
        if choice.recipe is not None:
            raise UserError(f"--recipe is {choice.recipe!r}; leave it out, as {run.path} needs no recipe")
        experiment = from_config(config, run.path)
    if kept is not None and kept.record.data:
        now = data_behind(experiment)
        of_data = [f"images of {part}" for part, digest in kept.record.data.items() if now.get(part) != digest]
        if of_data and choice.as_trained:
            raise UserError(f"{of_data[0]} differ from those of the training; a run keeps their hash only")
        _refuse_unless_chosen(run, of_data, choice)
        changed += of_data
    code = "unknown" if kept is None else f"changed: {', '.join(changed)}" if changed else AS_TRAINED
    return ReadRun(experiment, choice.recipe or name, code, bool(changed), choice.recipe is not None, kept)


def record_of(experiment: Experiment[Any, Any], name: str, iteration: int = 0) -> tuple[CodeRecord, dict[str, bytes]]:
    """The signed record of the code and data behind an experiment, and the copies to keep, by name.

    name: of the recipe, or its path. iteration: the first one that is trained with it.

    Raises:
        UserError: when one of the files or the data cannot be read.
    """
    module = None if name == IN_PYTHON else module_of(name)
    files, contents = keep(files_behind(experiment, module))
    try:
        data = data_behind(experiment)
    except ValueError as error:
        raise UserError(str(error)) from error
    recipe = str(Path(name).resolve()) if name.endswith(".py") else name
    return signed(CodeRecord(recipe, module, iteration, files, data)), contents


def keep_new_code(run: Run, reading: ReadRun, iteration: int) -> None:
    """Add a record of other code with which a run's training continues, and name its recipe in the config.

    iteration: the first one that is trained with it.

    Raises:
        UserError: when something cannot be read, or the disk refuses it.
    """
    record, copies = record_of(reading.experiment, reading.recipe, iteration)
    if reading.kept is not None and record.file_of(record.module) is None:  # a run that needs no code, on other images
        files = reading.kept.record.files
        copies = {file.copy: reading.kept.content_of(file) for file in files if file.copy is not None}
        record = signed(replace(record, files=files))
    run.keep_code(as_files(record, copies, number_of_records(run.path)))
    run.rewrite_config(to_config(reading.experiment, reading.recipe))


def project_of(record: CodeRecord) -> Path | None:
    """A folder of the user's project: the recipe's, or that of the first of the user's modules; None without any."""
    own = record.file_of(record.module) or next((file for file in record.files if file.module is not None), None)
    return None if own is None else Path(own.path).parent


def _places(run: Run, name: str, kept: KeptRecord | None, choice: CodeChoice) -> dict[str, Path]:
    """Where the files of a run's record are now, by their paths then; whether they may be used is checked.

    Raises:
        UserError: when there is no recipe to be run, or it may not be.
    """
    files = () if kept is None else kept.record.files
    if choice.as_trained:
        if kept is None:
            raise UserError(f"{run.path} keeps no code, as it was made by an earlier version; use --recipe PATH")
        _require_trust(run, name, kept, choice, [str(kept.copy_of(file)) for file in files if file.module])
        for file in files:
            kept.content_of(file)  # checks its hash
        return {file.path: kept.copy_of(file).resolve() for file in files}
    if choice.recipe is not None:
        return _taken_along(files, kept, Path(choice.recipe).absolute())
    if name == IN_PYTHON:
        raise UserError(
            f"{run.path} was trained from Python, and has parts that only Python can hold; name a recipe that has them "
            "with --recipe PATH, or pass the Run that metarl.train returned"
        )
    if name.endswith(".py"):
        _require_trust(
            run, name, kept, choice, [name, *(file.path for file in files if file.module != module_of(name))]
        )
    return {file.path: Path(file.path) for file in files}


def _taken_along(files: Iterable[KeptFile], kept: KeptRecord | None, recipe: Path) -> dict[str, Path]:
    """Where files are now, when the recipe may have taken them along to another folder; or else where they were."""
    places: dict[str, Path] = {}
    own = None if kept is None else kept.record.file_of(kept.record.module)
    for file in files:
        if own is None or recipe.suffix != ".py":
            places[file.path] = Path(file.path)
        elif file == own:
            places[file.path] = recipe
        else:
            moved = Path(os.path.normpath(recipe.parent / os.path.relpath(file.path, Path(own.path).parent)))
            places[file.path] = moved if moved.exists() else Path(file.path)
    return places


def _require_trust(run: Run, name: str, kept: KeptRecord | None, choice: CodeChoice, files: list[str]) -> None:
    """Check that the user trusts the code to run.

    Raises:
        UserError: when the user neither trusts this code now nor has run it before, or it is not a recipe's.
    """
    if kept is not None and kept.record.recipe == name and is_signed(kept.record):
        return
    if not choice.trust:
        copies = "" if kept is None else f"; --trust --as-trained runs the copies in {kept.folder / 'files'}"
        raise UserError(
            f"{run.path} needs code that you have not run here: {name}; read it, then run it with --trust, or name a "
            f"recipe of your own with --recipe PATH{copies}"
        )
    if not choice.as_trained:
        _check_recipe(Path(name))
    print(f"metarl: running code that {run.path} names: {', '.join(files)}", file=sys.stderr)


def _check_recipe(path: Path) -> None:
    """Check that a file is a recipe, without running it.

    Raises:
        UserError: when it does not bind `experiment`.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{path} is not a recipe that can be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.asname or node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}
    if not bound & {"experiment", "*"}:
        raise UserError(f"{path} is not a recipe: it defines no `experiment`, and is not run")


def _refuse_unless_chosen(run: Run, changed: list[str], choice: CodeChoice) -> None:
    """Check that the user has chosen a version, if something has changed.

    Raises:
        UserError: when something has changed and there is no choice.
    """
    if not changed:
        return
    what = f"changed since {run.path} was trained: {', '.join(changed)}"
    if not choice.with_current:
        moved = "; --recipe PATH says where a recipe is now" if any("(gone)" in name for name in changed) else ""
        raise UserError(f"{what}; --as-trained uses the run's own copies, --with-current what is there now{moved}")
    print(f"metarl: {what}; going on with what is there now", file=sys.stderr)


def _loader(name: str, kept: KeptRecord | None, choice: CodeChoice) -> Callable[[], Experiment[Any, Any]]:
    """A function that loads a recipe's experiment."""
    if choice.as_trained:
        assert kept is not None
        return lambda: experiment_in(load_kept(kept), name)
    return lambda: load(choice.recipe or name)


def _moved(value: Any, places: Mapping[str, Path]) -> Any:
    """A JSON value in which the paths of the run's files are those that they have now."""
    if isinstance(value, dict):
        return {name: _moved(item, places) for name, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, places) for item in value]
    return str(places[value]) if isinstance(value, str) and value in places else value
