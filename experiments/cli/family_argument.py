"""The family that a word of the command line stands for: its name, or that of an experiment, a recipe or a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli.arguments import parse
from experiments.experiment.code_choice import CodeChoice
from experiments.experiment.names import FAMILIES, FUNCTION_FAMILIES, experiment_names, known

if TYPE_CHECKING:
    from metarl.run.directory import Run

_FLAGS = ("--trust", "--as-trained", "--with-current")  # of the code that a run is read with


def code_choice(command: str, argv: list[str]) -> tuple[CodeChoice, list[str]]:
    """With which of the user's code a run is read, and the other words after the name."""
    own: list[str] = []
    rest: list[str] = []
    words = iter(argv[1:])
    for word in words:
        is_path = word == "--recipe"
        (own if is_path or word in _FLAGS else rest).append(word)
        own += [following for following in [next(words, None)] if following is not None] if is_path else []
    return parse(CodeChoice, own, prog=f"metarl {command} RUN"), rest


def family_of(name: str, choice: CodeChoice) -> tuple[Any, Run | None]:
    """The family that a name stands for, or that of an experiment, a recipe or a run; and the run, where it is one.

    Raises:
        UserError: when there is none of them; names the nearest family or experiment.
    """
    if name.endswith(".py") or (("/" in name or Path(name).is_dir()) and name not in FAMILIES):
        from experiments.experiment.definition import load
        from experiments.experiment.reading import read
        from metarl.run.directory import Run

        if name.endswith(".py"):
            return load(name).family, None
        if Path(name).exists() or name.count("/") != 1:
            run = Run.open(name)
            return read(run, choice).experiment.family, None if run.is_packed else run
        return load(known("experiment", name, experiment_names())).family, None
    from metarl._lazy import imported

    families = FAMILIES | FUNCTION_FAMILIES
    return imported(families[known("task family", name, families)])(), None


def title(family: Any, name: str) -> str:
    """The family with its fields where it is one of ours; a recipe's own can hold functions and whole robots."""
    return str(family) if name in FAMILIES else f"{family.name} ({name})"
