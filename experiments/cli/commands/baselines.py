"""Print what known methods reach on a task family: metarl baselines FAMILY [--trials N] [--ppo-steps N]."""

from __future__ import annotations

import json
from dataclasses import asdict, make_dataclass
from typing import Any

from experiments.cli.arguments import check_seed, parse, with_help
from experiments.experiment.names import FAMILIES, described, in_columns, known
from metarl.errors import UserError

DEFAULT_PPO_STEPS = 50_000  # half a minute for each of two policies

_USAGE = """usage: metarl baselines FAMILY [--trials N] [--ppo-steps N] [--seed N] [--json] [--family.FIELD VALUE ...]

Families without exact methods of their own also get PPO without meta-learning, after --ppo-steps steps of training
({ppo_steps:,}; 0 leaves it out), the task hidden and visible: a weak baseline for short training, but an honest one.

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
    name = known("task family", argv[0], FAMILIES)

    from envs.catalog import load
    from experiments.baselines import COLUMNS, baselines, rows

    family_class = load(name)
    fields = [
        ("family", family_class),
        ("trials", with_help(int, "the number of test tasks")),
        ("ppo_steps", with_help(int, "the number of training steps of each PPO policy; 0: no PPO")),
        ("seed", with_help(int, "the seed of all randomness")),
        ("json", with_help(bool, "whether to print one JSON object and nothing else")),
    ]
    arguments_class: Any = make_dataclass("Arguments", fields)
    default = arguments_class(family_class(), 1000, DEFAULT_PPO_STEPS, 0, False)
    arguments = parse(arguments_class, argv[1:], prog=f"metarl baselines {name}", description=" ", default=default)
    check_seed(arguments.seed)
    if arguments.trials < 2:
        raise UserError(f"--trials is {arguments.trials}; must be at least 2, or there is no standard error")
    if arguments.ppo_steps < 0:
        raise UserError(f"--ppo-steps is {arguments.ppo_steps}; must be 0, for none, or more")
    results = baselines(arguments.family, arguments.trials, arguments.seed, arguments.ppo_steps)
    sampled = any(result.standard_error != 0 for result in results)
    if arguments.json:
        num_trials = arguments.trials if sampled else None  # nothing was sampled where every value is exact
        results_as_json = [asdict(result) for result in results]
        print(json.dumps({"family": name, "num_trials": num_trials, "baselines": results_as_json}))
        return
    from rich.console import Console

    from experiments.cli.report import print_table

    what = f"{arguments.trials} test tasks" if sampled else "exact values"
    print_table(f"{arguments.family}: {what}", COLUMNS, rows(results), Console(), text=("method", "source"))
