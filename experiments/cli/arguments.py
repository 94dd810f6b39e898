"""A command's arguments from a dataclass, by tyro, with one-line errors.

Tyro reports an error as a framed panel of many lines, from which one line is made. A field named `experiment` has no
prefix: its seed is --seed.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Annotated, Any, TypeVar

import tyro

from metarl.errors import UserError

T = TypeVar("T")
Checkpoint = Annotated[str, tyro.conf.arg(metavar="{latest,best,iteration_N}")]  # of a run


def parse(cls: type[T], argv: Sequence[str], *, prog: str, description: str = "", default: T | None = None) -> T:
    """The arguments of a command; `default` gives the values of those that are not in `argv`.

    Raises:
        UserError: naming the argument, its value and what is allowed.
        SystemExit: with status 0, after printing the help that was asked for.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}
    panel = io.StringIO()
    try:
        with contextlib.redirect_stderr(panel):
            return tyro.cli(
                cls,
                prog=prog,
                description=description,
                args=_explicit_flags(argv, default),
                config=(tyro.conf.FlagCreatePairsOff if default is None else tyro.conf.AvoidSubcommands,),
                **given,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_one_line(panel.getvalue(), argv, default)} (see {prog} --help)") from None
    except ValueError as error:  # tyro reports those of nested dataclasses itself, but not of the outermost
        raise UserError(f"{error} (see {prog} --help)") from None


def with_help(kind: Any, text: str) -> Any:
    """The type of an argument that is made at run time, with the help text that a comment would give it."""
    return Annotated[kind, tyro.conf.arg(help=text)]


def own_words(argv: Sequence[str], cls: type[Any]) -> tuple[list[str], list[str]]:
    """The words of a command line that set a command's own arguments, a dataclass, and those that set other fields."""
    names = {field.name for field in fields(cls)} | {"help", "h"}
    own: list[str] = []
    others: list[str] = []
    words = own
    for word in argv:
        if word.startswith("-") and not word[1:2].isdigit():
            name = word.partition("=")[0].lstrip("-").replace("-", "_")
            words = own if name in names else others
        words.append(word)
    return own, others


def check_seed(seed: int) -> None:
    """Check the argument --seed.

    Raises:
        UserError: when it is outside the range of generators.
    """
    if not 0 <= seed < 2**62:
        raise UserError(f"--seed is {seed}; must be in [0, 2^62 - 1]")


def _explicit_flags(argv: Sequence[str], default: Any) -> list[str]:
    """`--agent.normalise-obs False` means `--agent.no-normalise-obs`; tyro knows the second form only."""
    flags = {flag.replace("--experiment.", "--") for flag in _boolean_flags(default)}
    result: list[str] = []
    for word in argv:
        name = result[-1].replace("_", "-") if result else ""
        if name in flags and word.lower() in ("true", "false"):
            prefix, _, last = name.rpartition(".")
            negated = f"{prefix}.no-{last}" if prefix else f"--no-{last.removeprefix('--')}"
            result[-1] = name if word.lower() == "true" else negated
        else:
            result.append(word)
    return result


def _boolean_flags(value: Any, prefix: str = "--") -> set[str]:
    """Names of all boolean fields of a dataclass and of those in it."""
    flags: set[str] = set()
    for field in fields(value) if is_dataclass(value) else ():
        inner = getattr(value, field.name)
        name = f"{prefix}{field.name.replace('_', '-')}"
        flags |= {name} if isinstance(inner, bool) else _boolean_flags(inner, f"{name}.")
    return flags


def _one_line(panel: str, argv: Sequence[str], default: Any) -> str:
    """One line from tyro's framed panel: its first paragraph, then the allowed values or a suggestion."""
    lines = [line.strip("│ ") for line in panel.splitlines() if line.startswith(("│", "  "))]  # in UTF-8 or not
    rows = ["" if set(line) <= {"─", "-"} else line for line in lines]
    paragraph: list[str] = []
    for row in rows:
        if not row:
            break
        paragraph.append(row)
    message = " ".join(paragraph)
    if union := re.match(r"Error parsing (\S+): no type matching (.+) could be instantiated", message):
        return f"{union[1]} is {_value_of(union[1], argv)!r}; it takes {union[2]}"
    following = {row: after for row, after in pairwise(rows) if row.endswith(":")}
    if usage := following.get("Argument helptext:"):
        flag, _, metavar = usage.partition(" ")
        return f"{flag} is {_value_of(flag, argv)!r}; it takes {metavar}"
    unknown = re.match(r"Unrecognized options: ([^,]+)", message)
    if unknown and (now := _option_now(unknown[1], default)):
        return f"unknown option {unknown[1]}; it is now {now}"
    if unknown and (near := following.get("Perhaps you meant:")):
        return f"unknown option {unknown[1]}; did you mean {near.split()[0].rstrip(',')}?"
    if unknown:
        before = argv[argv.index(unknown[1]) - 1] if unknown[1] in argv[1:] else ""
        if unknown[1].startswith("--"):
            return f"unknown option {unknown[1]}"
        return f"unknown argument {unknown[1]!r}{f' after {before}' if before else ''}"
    choice = re.match(r"invalid choice (.+) for argument '(.+)'\. Expected one of \((.+?),?\)\.", message)
    if choice:
        return f"{choice[2]} is {choice[1]}; must be one of {choice[3]}"
    missing = re.match(r"Missing value for argument '(.+)'\. Expected (\d+) values", message)
    if missing and missing[2] != "1":
        return f"{missing[1]} is {_value_of(missing[1], argv)!r}; it takes {missing[2]} values"
    message = message.replace("Expected 1 values", "It takes one value")
    return message.removeprefix("Error parsing ").removeprefix("experiment.")


def _option_now(flag: str, default: Any) -> str:
    """The options that one of an earlier version has become; "" for any other."""
    from experiments.experiment.config_json import option_now  # here, as it imports the families' catalog

    name = flag.removeprefix("--").partition("=")[0].replace("-", "_")
    now = option_now(getattr(default, "experiment", default), name)
    return ", ".join(f"--{place.replace('_', '-')}" for place in now.split(", ")) if now else ""


def _value_of(flag: str, argv: Sequence[str]) -> str:
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    names = [word.replace("_", "-") if word.startswith("--") else word for word in words]
    if flag not in names:
        return " ".join(words)
    values = words[names.index(flag) + 1 :]
    end = next((index for index, word in enumerate(values) if word.startswith("--")), len(values))
    return " ".join(values[:end])
