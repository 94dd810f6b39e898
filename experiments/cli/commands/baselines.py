"""Print what known methods reach on a task family: metarl baselines FAMILY|EXPERIMENT|RUN [--trials N]."""

from __future__ import annotations

import json
from dataclasses import asdict, make_dataclass
from typing import Any

from experiments.cli.arguments import check_seed, parse, with_help
from experiments.cli.family_argument import code_choice, family_of, title
from experiments.experiment.names import FAMILIES, described, in_columns
from metarl.errors import UserError, shell_command

DEFAULT_PPO_STEPS = 50_000  # half a minute for each of two policies

_USAGE = """usage: metarl baselines FAMILY|EXPERIMENT|RUN [--trials N] [--ppo-steps N] [--seed N] [--json]
                        [--family.FIELD VALUE ...] [--recipe PATH] [--trust] [--as-trained] [--with-current]

Families without exact methods of their own also get PPO without meta-learning, after --ppo-steps steps of training
({ppo_steps:,}; 0 leaves it out), the task hidden and visible: a weak baseline for short training, but an honest one.

EXPERIMENT is the name of an experiment or the path of your own recipe (a .py file), RUN the directory of a run; either
stands for its family; the last four options say which code a run that needs yours is read with, as in metarl evaluate.
The results of a run are saved in it, and drawn as bounds in its figures from then on.

FAMILY is one of these; its fields: metarl baselines FAMILY --help
{families}
"""


def main(argv: list[str]) -> None:
    if not argv or argv[0].startswith("-"):
        families = {name: text for name, text in described("families").items() if name in FAMILIES}
        print(_USAGE.format(ppo_steps=DEFAULT_PPO_STEPS, families="\n".join(in_columns(families))))
        if argv and argv[0] in ("-h", "--help"):
            return
        raise UserError("which family? metarl baselines FAMILY")
    choice, rest = code_choice("baselines", argv)
    family, run = family_of(argv[0], choice)
    if not hasattr(family, "make_env"):
        raise UserError(f"{family.name} has no baselines: they are of families in which an agent acts")

    from experiments.baselines import COLUMNS, baselines, rows

    fields = [
        ("family", type(family)),
        ("trials", with_help(int, "the number of test tasks")),
        ("ppo_steps", with_help(int, "the number of training steps of each PPO policy; 0: no PPO")),
        ("seed", with_help(int, "the seed of all randomness")),
        ("json", with_help(bool, "whether to print one JSON object and nothing else")),
    ]
    arguments_class: Any = make_dataclass("Arguments", fields)
    default = arguments_class(family, 1000, DEFAULT_PPO_STEPS, 0, False)
    prog = shell_command("metarl", "baselines", argv[0])
    arguments = parse(arguments_class, rest, prog=prog, description=" ", default=default)
    check_seed(arguments.seed)
    if arguments.trials < 2:
        raise UserError(f"--trials is {arguments.trials}; must be at least 2, or there is no standard error")
    if arguments.ppo_steps < 0:
        raise UserError(f"--ppo-steps is {arguments.ppo_steps}; must be 0, for none, or more")
    if run is not None and arguments.family != family:
        raise UserError("a run has the baselines of its own family: leave out --family, or name a family or recipe")
    try:
        results = baselines(arguments.family, arguments.trials, arguments.seed, arguments.ppo_steps)
    except (ValueError, FloatingPointError) as error:  # a robot, a recipe or an environment of the user's own
        raise UserError(str(error)) from error
    sampled = any(result.standard_error != 0 for result in results)
    num_trials = arguments.trials if sampled else None  # no task was sampled where every value is exact
    saved = {
        "family": family.name,
        "num_trials": num_trials,
        "seed": arguments.seed,
        "ppo_steps": arguments.ppo_steps,
        "baselines": [asdict(result) for result in results],
    }
    if arguments.json:
        print(json.dumps(saved))
    else:
        from rich.console import Console

        from experiments.cli.tables import print_table

        what = f"{arguments.trials} test tasks" if sampled else "exact values"
        print_table(
            f"{title(arguments.family, argv[0])}: {what}", COLUMNS, rows(results), Console(), text=("method", "source")
        )
    if run is not None:
        path = run.save_baselines(saved)
        if not arguments.json:
            print(f"Saved: {path}; drawn in the figures of: {shell_command('metarl', 'evaluate', run.path)}")
