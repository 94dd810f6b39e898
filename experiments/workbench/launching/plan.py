"""A plan: experiments by name, by the path of a recipe or from a plan's file, each with its seeds.

The file of a plan is Python with a module-level list of experiments, as words of the command line or as values:

    experiments = ["grid_navi/rl2", "grid_navi/rl2 --agent.hidden-size 128", Experiment(GridNavi(size=7), ...)]
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any

from experiments.cli.arguments import check_seed, parse, with_help
from experiments.cli.session import new_run
from experiments.experiment.definition import IN_PYTHON, Experiment, argument_type, from_config, load, to_config
from experiments.experiment.names import experiment_names, known
from experiments.experiment.recipe_file import load_file
from experiments.experiment.variants import experiment_with_variants
from metarl.errors import UserError
from metarl.run.directory import Run
from metarl.run.log_writers import DEFAULT_LOG, LogName

_LIST = "experiments"  # what a plan's file calls its list


@dataclass(frozen=True)
class PlannedExperiment:
    """An experiment of a plan, by the words that name it."""

    name: str  # a recipe's name or path, or the plan's file and a place in its list
    own_words: tuple[str, ...] = ()  # overrides of this experiment, as on the command line
    common_words: tuple[str, ...] = ()  # overrides that all experiments of the launch have
    place: tuple[Path, int] | None = None  # file and position of an experiment that is a value in a plan's file

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.own_words, *self.common_words)

    def settings(self) -> tuple[Experiment[Any, Any], tuple[LogName, ...]]:
        """The experiment, loaded afresh, and what its progress is written to.

        Raises:
            UserError: when it does not load, or an override is not one of its fields or values.
        """
        experiment = load(self.name) if self.place is None else _listed(self.place[0])[self.place[1]]
        experiment, words = experiment_with_variants(experiment, self.words)
        fields = [
            ("experiment", argument_type(experiment)),
            ("log", with_help(tuple[LogName, ...], "the writers of the progress")),
        ]
        arguments_class: Any = make_dataclass("Arguments", fields)
        default = arguments_class(experiment, DEFAULT_LOG)
        arguments = parse(arguments_class, words, prog=f"metarl train {self.name}", default=default)
        check_seed(arguments.experiment.seed)
        return arguments.experiment, arguments.log

    @property
    def recipe(self) -> str:
        """What a run's config names as its recipe."""
        return self.name if self.place is None else IN_PYTHON

    def config(self) -> dict[str, Any]:
        """What the config.json of its run holds.

        Raises:
            UserError: as `settings` does, and for a value in a plan's file that a run's directory cannot hold.
        """
        config = json.loads(json.dumps(to_config(self.settings()[0], self.recipe)))
        if self.place is not None:
            try:
                from_config(config, self.place[0])
            except UserError as error:
                raise UserError(
                    f"{self.name} has parts that only Python can hold; name its recipe in the plan instead, "
                    f"with its settings as on the command line ({error})"
                ) from error
        return config


@dataclass(frozen=True)
class PlannedRun:
    """An experiment with one seed."""

    experiment: PlannedExperiment
    config: dict[str, Any]  # the content of its run's config.json

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def num_iterations(self) -> int:
        return self.config["train"]["num_iterations"]

    @property
    def title(self) -> str:
        """What a table calls it: without the overrides that all have."""
        return " ".join((self.experiment.name, *self.experiment.own_words))

    @property
    def identity(self) -> str:
        """Every setting that decides the run's numbers, as one text."""
        return identity(self.config)

    def create(self) -> Run:
        """A new directory for it below runs/; the run is not yet started.

        Raises:
            UserError: when the experiment does not load any more, or the disk refuses it.
        """
        planned = self.experiment
        experiment, log = planned.settings()
        if planned.place is None:
            command = ["metarl", "train", planned.name, "--seed", str(self.seed), *planned.words]
        else:
            command = ["metarl", "launch", str(planned.place[0]), "--seeds", f"{self.seed},", *planned.words]
        return new_run(replace(experiment, seed=self.seed), planned.recipe, None, command, log)


def identity(config: dict[str, Any]) -> str:
    """What decides the numbers of a run with this config, as one text: all of it but what was expected."""
    return json.dumps({**config, "expected": None}, sort_keys=True)


def planned_runs(names: Sequence[str], seeds: Sequence[int] | None, words: Sequence[str]) -> list[PlannedRun]:
    """Every experiment with every seed, all settings checked; what is named twice is planned once.

    names: of recipes, or paths of recipes and plans. seeds: None: each experiment's own. words: overrides for all.

    Raises:
        UserError: for an unknown experiment, a file that does not load, or an override that does not fit.
    """
    runs: dict[str, PlannedRun] = {}
    for found in _found(names):
        experiment = replace(found, common_words=tuple(words))
        if seeds is not None and any(word.partition("=")[0] == "--seed" for word in experiment.words):
            raise UserError(f"{found.name} is given --seed, and --seeds too; leave one of them out")
        config = experiment.config()
        for seed in (config["seed"],) if seeds is None else seeds:
            run = PlannedRun(experiment, {**config, "seed": seed})
            runs.setdefault(run.identity, run)
    return list(runs.values())


def parse_seeds(text: str) -> list[int]:
    """The seeds that a word names: how many ("5": 0 to 4), or which ("0,3,7"; "7," for one).

    Raises:
        UserError: when it names none.
    """
    wrong = UserError(f"--seeds is {text!r}; must be a number of seeds such as 5, or a list such as 0,3,7")
    try:
        numbers = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        raise wrong from None
    seeds = numbers if "," in text else list(range(numbers[0]))
    if not seeds or min(seeds) < 0:
        raise wrong
    for seed in seeds:
        check_seed(seed)
    return list(dict.fromkeys(seeds))


def _found(names: Iterable[str]) -> Iterator[PlannedExperiment]:
    """The experiments with these names, a plan's file standing for all of its own."""
    for name in names:
        if name.endswith(".py") and not Path(name).is_file():
            raise UserError(f"there is no recipe or plan at {name}: no such file")
        if name.endswith(".py") and hasattr(load_file(Path(name)), _LIST):
            yield from _in_plan(Path(name))
        else:
            yield _recipe(name)


def _in_plan(plan: Path) -> Iterator[PlannedExperiment]:
    for index, entry in enumerate(_listed(plan)):
        if isinstance(entry, Experiment):
            yield PlannedExperiment(f"{plan}[{index}]", place=(plan, index))
            continue
        name, *words = shlex.split(entry)
        path = str(plan.parent / name) if name.endswith(".py") else name
        yield replace(_recipe(path), own_words=tuple(words))


def _recipe(name: str) -> PlannedExperiment:
    return PlannedExperiment(name if name.endswith(".py") else known("experiment", name, experiment_names()))


def _listed(plan: Path) -> list[Any]:
    """The list in the file of a plan: experiments, and texts that name one.

    Raises:
        UserError: when it is another.
    """
    entries = getattr(load_file(plan), _LIST, None)
    if not isinstance(entries, (list, tuple)) or not entries:
        raise UserError(f"plan {plan}: {_LIST} must be a list of experiments, and not empty")
    for index, entry in enumerate(entries):
        if not isinstance(entry, Experiment) and not (isinstance(entry, str) and entry.strip()):
            raise UserError(
                f"plan {plan}: {_LIST}[{index}] is {entry!r}; must be an Experiment or a text that names one"
            )
    return list(entries)
