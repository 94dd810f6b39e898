"""Check a family before training in it: metarl check FAMILY|EXPERIMENT|RECIPE [--sheet tasks.png]."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli.arguments import check_seed, parse, with_help
from experiments.cli.family_argument import code_choice, family_of, title
from metarl.errors import UserError, shell_command

if TYPE_CHECKING:
    from experiments.cli.family_facts import Behaviour, FamilyFacts

_USAGE = """usage: metarl check FAMILY|EXPERIMENT|RECIPE|RUN [--tasks N] [--sheet tasks.png] [--seed N] [--json]
                    [--family.FIELD VALUE ...]

Check the laws that every family must satisfy, and print the spaces, the ranges of the tasks and of what is observed,
the reward and what the family measures at rest and under random actions, and the speed. With --sheet, draw sampled
tasks. RECIPE is the path of your own recipe (a .py file).
"""


def main(argv: list[str]) -> None:
    if not argv or argv[0].startswith("-"):
        print(_USAGE)
        if argv and argv[0] in ("-h", "--help"):
            return
        raise UserError("which family? metarl check FAMILY")
    choice, rest = code_choice("check", argv)
    family, _ = family_of(argv[0], choice)
    if not hasattr(family, "make_env"):
        raise UserError(f"{family.name} cannot be checked: its tasks are functions, and nothing acts in them")
    fields = [
        ("family", type(family)),
        ("tasks", with_help(int, "the number of training tasks to act in")),
        ("sheet", with_help(Path | None, "the PNG file of sampled tasks to write; None: no file")),
        ("sheet_tasks", with_help(int, "the number of tasks in that file")),
        ("sheet_steps", with_help(int, "the number of random actions before each of its images")),
        ("seed", with_help(int, "the seed of all randomness")),
        ("json", with_help(bool, "whether to print one JSON object and nothing else")),
    ]
    arguments_class: Any = make_dataclass("Arguments", fields)
    prog = shell_command("metarl", "check", argv[0])
    default = arguments_class(family, 32, None, 8, 20, 0, False)
    arguments = parse(arguments_class, rest, prog=prog, description=" ", default=default)
    check_seed(arguments.seed)
    for name in ("tasks", "sheet_tasks", "sheet_steps"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; must be at least 1")
    if arguments.sheet is not None and arguments.sheet.suffix != ".png":
        raise UserError(f"--sheet is {str(arguments.sheet)!r}; must end in .png")
    _check(arguments, title(arguments.family, argv[0]))


def _check(arguments: Any, name: str) -> None:
    from envs.check import check_family
    from experiments.cli.family_facts import family_facts

    family = arguments.family
    try:
        check_family(family, seed=arguments.seed)
        facts = family_facts(family, arguments.tasks, arguments.seed)
    except (AssertionError, ValueError, FloatingPointError) as error:  # of a family or a recipe of the user's own
        raise UserError(str(error)) from error
    if arguments.json:
        print(json.dumps(asdict(facts)))
    else:
        _print(family, name, facts)
    if arguments.sheet is not None:
        from experiments.cli.task_sheet import draw_sheet

        draw_sheet(family, arguments.sheet_tasks, arguments.sheet_steps, arguments.seed, arguments.sheet)
        if not arguments.json:
            print(f"Sheet: {arguments.sheet}")


def _print(family: Any, name: str, facts: FamilyFacts) -> None:
    from rich.console import Console

    from experiments.cli.tables import print_table

    console = Console()
    print(f"{name}: all laws hold")
    print(f"horizon {family.horizon} steps, {family.num_episodes} episodes in a trial")
    obs, action = family.observation_space, family.action_space
    columns = ("entry", "declared", "smallest", "mean", "largest")
    rows = [
        (str(entry), _interval(obs.low[entry], obs.high[entry]), *map(_short, seen))
        for entry, seen in enumerate(facts.random.observed)
    ]
    print_table(f"{len(rows)} observed numbers, under random actions", columns, rows, console)
    if hasattr(action, "low"):
        rows = [(str(entry), _interval(*ends)) for entry, ends in enumerate(zip(action.low, action.high, strict=True))]
        print_table(f"{len(rows)} actions", ("entry", "range"), rows, console)
    else:
        print(f"{action.n} actions")
    rows = [
        (parameter, *(_interval(*facts.tasks[split][parameter]) for split in facts.tasks))
        for parameter in facts.tasks["train"]
    ]
    print_table("task parameters, in 1000 tasks", ("parameter", *facts.tasks), rows, console)
    both = (_column(facts.at_rest), _column(facts.random))
    rows = [(row, *(column[row] for column in both)) for row in both[0]]
    print_table(f"one episode in {facts.num_tasks} tasks", ("", "at rest", "random actions"), rows, console)


def _column(behaviour: Behaviour) -> dict[str, str]:
    """What a policy gets, by the names of the rows."""
    low, mean, high = map(_short, behaviour.reward)
    column = {"reward per step": mean, "smallest reward": low, "largest reward": high}
    column |= {name.replace("_", " "): _short(value) for name, value in behaviour.metrics.items()}
    column |= {"return": _short(behaviour.episode_return), "steps of an episode": f"{behaviour.episode_steps:.0f}"}
    column["ended by the task"] = f"{behaviour.terminated:.0%}"
    if behaviour.num_diverged is not None:
        column["diverged simulations"] = str(behaviour.num_diverged)
    return column | {"steps per second": f"{behaviour.steps_per_second:,.0f}"}


def _short(value: float) -> str:
    return f"{value:.3g}"


def _interval(low: float, high: float) -> str:
    """Two ends; "any" where there are none."""
    if math.isinf(low) and math.isinf(high):
        return "any"
    return f"{_short(low)} to {_short(high)}"
