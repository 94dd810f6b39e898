"""Show how a trained agent adapts to unseen tasks: metarl evaluate RUN [--split test] [--json].

After RUN, any field of the run's family or agent can be given another value than in training, as in metarl train:
--family.FIELD VALUE --agent.FIELD VALUE.
"""

from __future__ import annotations

import json as json_format
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.cli.arguments import check_seed, parse
from experiments.experiment.code_choice import CodeChoice
from metarl.errors import UserError

if TYPE_CHECKING:
    from experiments.experiment.definition import Experiment

_Points = Annotated[int | None, tyro.conf.arg(aliases=("--episodes",))]  # an agent's points are episodes
_PARTS = ("--family.", "--agent.")  # whose fields can be given other values

_Code = Annotated[CodeChoice, tyro.conf.arg(name="")]  # whose flags have no prefix


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # the run's directory
    split: Literal["train", "val", "test", "ood"] = "test"  # the tasks' split; ood: outside the training range
    tasks: int = 1000  # the number of tasks (the agent starts from its prior in each)
    points: _Points = None  # the number of points of the curve: episodes, or adaptation steps; None: as in training
    ways: int | None = None  # the number of classes per task, for families of images; None: the run's own
    shots: int | None = None  # the number of examples per class, for families of images; None: the run's own
    queries: int | None = None  # the number of queries per class, for families of images; None: the run's own
    checkpoint: Literal["latest", "best"] = "latest"  # the checkpoint to evaluate
    seed: int = 0  # the seed of the tasks and of all randomness; one seed gives one result
    device: Literal["cpu", "cuda"] | None = None  # the device to evaluate on; None: the one of training
    deterministic: bool = False  # whether to act by the policy's mode
    per_task: Literal["csv"] | None = None  # the form in which to save the scores of each task too, beside the JSON
    json: bool = False  # whether to print one JSON object and nothing else
    code: _Code = field(default_factory=CodeChoice)  # the user's code that the run is read with


def main(argv: list[str]) -> None:
    own, of_parts = _apart(argv)
    arguments = parse(Arguments, own, prog="metarl evaluate", description=__doc__ or "")
    check_seed(arguments.seed)
    for name in ("tasks", "points"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}; must be at least 1")
    if arguments.json and arguments.per_task is not None:
        raise UserError("--json prints the scores of each task already, and saves no file; leave --per-task out")
    from experiments.cli.belief import draw_beliefs
    from experiments.cli.plots import plot_run
    from experiments.cli.report import identity, print_evaluation
    from experiments.experiment.evaluating import SIZES, evaluate_run
    from experiments.experiment.reading import read
    from metarl.run.directory import Run

    run = Run.open(arguments.run)
    reading = read(run, arguments.code)
    trained = reading.experiment
    if arguments.device is not None:
        trained = replace(trained, device=arguments.device)
    asked = _with_fields(trained, of_parts)
    sizes = {name: value for name in SIZES if (value := getattr(arguments, name)) is not None}
    evaluated = evaluate_run(
        run,
        trained,
        asked,
        split=arguments.split,
        tasks=arguments.tasks,
        points=arguments.points,
        checkpoint=arguments.checkpoint,
        seed=arguments.seed,
        sizes=sizes,
        deterministic=arguments.deterministic,
    )
    evaluation, trainer = evaluated.evaluation, evaluated.trainer
    subject = identity(trainer, arguments.checkpoint, arguments.seed, reading.code)
    if arguments.json:
        print(json_format.dumps({**evaluation.as_json(), **subject}))
        return
    num_points = len(evaluation.points) - (1 - evaluation.measure.first)
    suffix = "".join(f"_{value}{name}" for name, value in sizes.items())
    suffix += "".join("_" + re.sub(r"[^\w.=-]", "", f"{name}={value}") for name, value in evaluated.settings.items())
    suffix += "_deterministic" if arguments.deterministic else ""
    suffix += f"_i{trainer.iteration}_s{arguments.seed}{'_with_current' if reading.has_changed else ''}"
    name = f"evaluation_{arguments.split}_{arguments.tasks}x{num_points}{suffix}"
    try:
        saved = run.save_evaluation(evaluation, subject, name)
        table = None if arguments.per_task is None else run.save_per_task(evaluation, name)
        plot = plot_run(run, evaluation, name, of_run=asked.family == trained.family)
        beliefs = draw_beliefs(trainer.family, trainer.agent, num_points, seed=arguments.seed)
        belief_plot = None if beliefs is None else run.save_picture(f"{name}_belief", beliefs.png)
    finally:
        print_evaluation(evaluation)  # saved before, and shown even where it cannot be saved
    print(f"Saved: {saved}")
    if table is not None:
        print(f"Tasks: {table}")
    print(f"Plot:  {plot}")
    if beliefs is not None:
        print(f"Belief: {belief_plot}{beliefs}")


def _apart(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's own words, and those that give fields of the family or the agent other values."""
    own: list[str] = []
    of_parts: list[str] = []
    words = own
    for word in argv:
        if word.startswith("--"):
            words = of_parts if word.startswith(_PARTS) else own
        words.append(word)
    return own, of_parts


def _with_fields(experiment: Experiment[Any, Any], words: Sequence[str]) -> Experiment[Any, Any]:
    """The experiment with the fields that `words` name.

    Raises:
        UserError: for an unknown field, or a value that it does not take.
    """
    if not words:
        return experiment
    from experiments.experiment.definition import argument_type

    settings: Any = make_dataclass("Settings", [("experiment", argument_type(experiment))])
    return parse(settings, words, prog="metarl evaluate RUN", default=settings(experiment)).experiment
