"""Search an experiment's settings: metarl sweep EXPERIMENT --agent.learning-rate 1e-4:1e-2:log [--trials N].

Fields to search get a range (1e-4:1e-2, 1e-4:1e-2:log, 16:128:16) or a list (64,128,256; "40 40,64 64") instead of a
value. Trials are measured on validation tasks, never on test tasks. The same command again resumes the sweep, or joins
it while it is running elsewhere.
"""

from __future__ import annotations

import json as json_format
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.cli.arguments import check_seed, own_words, parse
from metarl.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.workbench.sweeping.space import Space
    from experiments.workbench.sweeping.study import Study
    from experiments.workbench.sweeping.sweeper import Plan

_Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT")]
_USAGE = "metarl sweep EXPERIMENT --PART.FIELD LOW:HIGH[:log] [--PART.FIELD A,B,C] [--trials N] [any other field]"


@dataclass(frozen=True)
class Arguments:
    experiment: _Name  # the name of an experiment, or the path of a recipe
    trials: int = 30  # the number of trials, of all processes together
    jobs: int | None = None  # the number of runs at once; None: as many as there are CPUs
    seeds: str = "1"  # the number of seeds of each trial, or a list such as 0,3,7; a trial's score is their mean
    objective: Literal["last", "mean", "gain"] = "last"  # the last point, mean or gain of the adaptation curve
    sampler: Literal["tpe", "gp", "cmaes", "random", "qmc"] = "tpe"  # the sampler that proposes settings
    pruner: Literal["none", "hyperband", "median", "wilcoxon"] = "median"  # the pruner that ends trials early
    warm_up: float = 0.3  # the fraction of a trial's iterations before which it is not ended early
    patience: int = 2  # the number of validations without improvement before a trial may be ended early
    evaluations: int = 10  # the number of validations during a trial
    warm_start: tuple[Path, ...] = ()  # sweeps or folders of runs on other families, to try their best first
    warm_trials: int = 5  # the number of trials that --warm-start proposes
    confirm: int = 3  # the number of fresh seeds under which the winner is trained again; 0: not at all
    out: Path | None = None  # the directory of the sweep; None: sweeps/EXPERIMENT
    sampler_seed: int = 0  # the seed of the sampler
    threads_per_run: int = 1  # the number of threads of each run
    dry_run: bool = False  # whether to print the space and start nothing
    json: bool = False  # whether to print the result as one JSON object and nothing else


def main(argv: list[str]) -> int:
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        raise UserError(f"the experiment comes first: {_USAGE}")
    own, overrides = own_words(argv, Arguments)
    arguments = parse(Arguments, own, prog="metarl sweep", description=__doc__ or "")
    _check(arguments)
    _require_optuna()
    from rich.console import Console

    from experiments.workbench.sweeping.space import parse_space

    console = Console(stderr=arguments.json)
    space = parse_space(arguments.experiment, overrides)
    plan, settings = plan_of(arguments, space)
    if arguments.dry_run:
        _print_space(space, plan, settings, console)
        return 0
    name = Path(arguments.experiment).stem if arguments.experiment.endswith(".py") else space.experiment
    folder = arguments.out or Path("sweeps") / name
    return _sweep(arguments, plan, settings, folder, argv, console)


def _check(arguments: Arguments) -> None:
    """Check the numbers among the arguments.

    Raises:
        UserError: for one that is out of range.
    """
    least = {"trials": 1, "jobs": 1, "patience": 0, "evaluations": 1, "warm_trials": 1, "confirm": 0}
    for name, lowest in (least | {"threads_per_run": 1}).items():
        value = getattr(arguments, name)
        if value is not None and value < lowest:
            raise UserError(f"--{name.replace('_', '-')} is {value}; must be at least {lowest}")
    if not 0 <= arguments.warm_up < 1:
        raise UserError(f"--warm-up is {arguments.warm_up}; must be at least 0 and below 1")
    check_seed(arguments.sampler_seed)


def _require_optuna() -> None:
    try:
        import cmaes  # noqa: F401
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError(f"metarl sweep needs Optuna: pip install 'metarl[workbench]' ({error})") from error


def plan_of(arguments: Arguments, space: Space) -> tuple[Plan, dict[str, Any]]:
    """What this process does, and what all processes of the sweep have in common.

    Raises:
        UserError: when the experiment cannot be trained, or the pruner has nothing to compare.
    """
    from envs.simulators.cpu_count import available_cpus
    from experiments.experiment.definition import to_config
    from experiments.workbench.launching.plan import parse_seeds
    from experiments.workbench.sweeping.objective import Objective, validation_split
    from experiments.workbench.sweeping.study import Pruning
    from experiments.workbench.sweeping.sweeper import Plan

    seeds = parse_seeds(arguments.seeds)
    if arguments.pruner == "wilcoxon" and len(seeds) < 2:
        raise UserError("--pruner is wilcoxon, which compares finished seeds of a trial; give --seeds 2 or more")
    experiment = space.settings(space.first_words())
    measure = experiment.trainer().source.measure
    objective = Objective(arguments.objective, measure.name, measure.higher_is_better)
    plan = Plan(
        space=space,
        objective=objective,
        pruning=Pruning(arguments.pruner, arguments.warm_up, arguments.patience),
        seeds=tuple(seeds),
        evaluations=arguments.evaluations,
        trials=arguments.trials,
        at_once=arguments.jobs or max(1, available_cpus() // arguments.threads_per_run),
    )
    config = json_format.loads(json_format.dumps(to_config(space.settings(), arguments.experiment)))
    settings = {
        **{part: config[part] for part in ("experiment", "family", "agent", "train", "device")},
        "space": {dimension.name: dimension.text for dimension in space.all},
        "objective": arguments.objective,
        "direction": "maximize" if objective.maximises else "minimize",
        "split": validation_split(experiment.family),
        "seeds": seeds,
        "pruner": arguments.pruner,
    }
    return plan, settings


def _print_space(space: Space, plan: Plan, settings: dict[str, Any], console: Console) -> None:
    from experiments.cli.tables import print_table

    rows = []
    for dimension in space.all:
        having = space.having.get(dimension.name)
        texts = [" ".join(combination) for combination in sorted(having or ())]
        everywhere = having is None or len(having) == space.num_combinations
        rows.append([dimension.name, dimension.described, "" if everywhere else f"only with {', '.join(texts)}"])
    print_table(
        f"{space.experiment}: what is searched", ("field", "values", "present"), rows, console, text=("values",)
    )
    direction = "the higher, the better" if plan.objective.maximises else "the lower, the better"
    split = {"val": 'split "val"', "train": "training tasks that training does not draw"}[settings["split"]]
    each = "one seed" if len(plan.seeds) == 1 else f"{len(plan.seeds)} seeds"
    console.print(
        f"Trials: {plan.trials}, each of {each}; runs at once: {plan.at_once}; objective: {plan.objective.name} "
        f"({direction}) on {split}; pruner: {plan.pruning.kind}",
        highlight=False,
        soft_wrap=True,
    )


def _sweep(
    arguments: Arguments, plan: Plan, settings: dict[str, Any], folder: Path, argv: list[str], console: Console
) -> int:
    from experiments.workbench.launching.board import Board
    from experiments.workbench.launching.engines import LocalEngine
    from experiments.workbench.sweeping import conclusion, worker
    from experiments.workbench.sweeping.pictures import draw_sweep, importance_of
    from experiments.workbench.sweeping.space import Choice
    from experiments.workbench.sweeping.study import Study
    from experiments.workbench.sweeping.sweeper import Sweeper, best_of

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    again = shlex.join(["metarl", "sweep", *argv])
    lists = [dimension.name for dimension in plan.space.all if isinstance(dimension, Choice)]
    if arguments.sampler == "cmaes" and lists:
        say(f"cmaes searches numbers only; drawn at random: {', '.join(lists)}")
    study = Study(folder, settings, arguments.sampler, arguments.sampler_seed)
    if arguments.warm_start and not study.trials():
        _warm_start(arguments, plan, study, say)
    engine = LocalEngine(arguments.threads_per_run, program=worker.__name__)
    status = Sweeper(plan, study, engine, say).work()
    if status:
        print(f"Go on with: {again}", file=sys.stderr)
        return status
    best = best_of(study, plan)
    confirmation = None
    if best is not None and arguments.confirm:
        with study.concluding(), Board(console) as board:
            confirmation, status = conclusion.confirm(
                study, plan, best, arguments.confirm, LocalEngine(arguments.threads_per_run), board
            )
    importance = importance_of(study)
    files = draw_sweep(study, importance, plan.objective.described)
    if best is not None:
        files.insert(0, conclusion.write_winner(study, plan, best, confirmation))
    result = conclusion.result_of(study, plan, settings["split"], confirmation, importance, files)
    if arguments.json:
        print(json_format.dumps(result.as_json()))
    else:
        conclusion.print_result(study, plan, result, console)
    if status:
        print(f"Go on with: {again}", file=sys.stderr)
    return status or (1 if best is None else 0)


def _warm_start(arguments: Arguments, plan: Plan, study: Study, say: Any) -> None:
    """Propose past settings to a sweep that has no trial yet."""
    from experiments.workbench.sweeping.warm_start import past_trials

    past, notes = past_trials(arguments.warm_start, plan.space, plan.objective)
    for note in notes:
        say(note)
    for trial in study.propose(past, arguments.warm_trials):
        say(f"warm start: {trial.described}")
