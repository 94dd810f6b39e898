"""Show how trained agents adapt to unseen tasks: metarl evaluate RUN... [--split test] [--json].

RUN is a run's directory, the archive of a trained agent, or the name of one that comes with MetaRL, e.g. grid_navi/rl2
(metarl list trained). After it, any field of the run's family or agent can be given another value than in training, as
in metarl train: --family.FIELD VALUE --agent.FIELD VALUE. --grid family.obs-noise=0,0.05,0.1 makes a table over values,
--grid family.engine=mujoco,mujoco_warp,gymnasium one over physics engines.
"""

from __future__ import annotations

import glob
import json as json_format
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.cli.arguments import Checkpoint, check_seed, parse
from experiments.experiment.code_choice import CodeChoice
from metarl.errors import UserError

if TYPE_CHECKING:
    from experiments.experiment.definition import Expected, Experiment
    from experiments.experiment.evaluating import Evaluated
    from metarl.run.directory import Run

_Runs = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
_Points = Annotated[int | None, tyro.conf.arg(aliases=("--episodes",))]  # an agent's points are episodes
_PARTS = ("--family.", "--agent.")  # whose fields can be given other values

_Code = Annotated[CodeChoice, tyro.conf.arg(name="")]  # whose flags have no prefix


@dataclass(frozen=True)
class Arguments:
    runs: _Runs  # directories of runs, patterns such as 'runs/*/*', archives, or names of trained agents
    split: Literal["train", "val", "test", "ood"] = "test"  # the tasks' split; ood: outside the training range
    tasks: int = 1000  # the number of tasks (the agent starts from its prior in each)
    points: _Points = None  # the number of points of the curve: episodes, or adaptation steps; None: as in training
    ways: int | None = None  # the number of classes per task, for families of images; None: the run's own
    shots: int | None = None  # the number of examples per class, for families of images; None: the run's own
    queries: int | None = None  # the number of queries per class, for families of images; None: the run's own
    checkpoint: Checkpoint = "latest"  # the checkpoint to evaluate; an archive has only one
    seed: int = 0  # the seed of the tasks and of all randomness; one seed gives one result
    device: Literal["cpu", "cuda"] | None = None  # the device to evaluate on; None: the one of training
    deterministic: bool = False  # whether to act by the policy's mode
    through: Path | None = None  # an ONNX file that metarl export wrote, to act through it instead of the checkpoint
    grid: tyro.conf.UseAppendAction[tuple[str, ...]] = ()  # family.FIELD=V1,V2,..., once or twice: a table over values
    per_task: Literal["csv"] | None = None  # the form in which to save the scores of each task too, beside the JSON
    json: bool = False  # whether to print one JSON object (a list of them for several runs) and nothing else
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
    names = list(dict.fromkeys(found for word in arguments.runs for found in sorted(glob.glob(word)) or [word]))
    if not names:
        raise UserError("which run? metarl evaluate RUN...")
    from experiments.cli.tables import print_evaluation, print_evaluations
    from experiments.experiment.opening import open_run

    runs = [open_run(name) for name in names]  # all of them before the first is evaluated
    if arguments.grid:
        if len(runs) > 1:
            raise UserError(f"--grid takes one run; {len(runs)} are given")
        _evaluate_grid(runs[0], arguments, of_parts)
        return
    made = [_evaluate(run, arguments, of_parts) for run in runs] if arguments.json or len(runs) > 1 else []
    if arguments.json:
        objects = [one.as_json() for one in made]
        print(json_format.dumps(objects[0] if len(objects) == 1 else objects))
    elif made:
        for one in made:
            print(f"Saved: {one.save(arguments)[0]}")
        print_evaluations({name: one.evaluated.evaluation for name, one in zip(names, made, strict=True)})
    else:
        one = _evaluate(runs[0], arguments, of_parts)
        try:
            saved, table, plot = one.save(arguments)
        finally:
            print_evaluation(one.evaluated.evaluation)  # saved before, and shown even where it cannot be saved
        print(f"Saved: {saved}")
        if table is not None:
            print(f"Tasks: {table}")
        print(f"Plot:  {plot}")
        if (belief := one.save_belief(f"{plot.stem}_belief", arguments.seed)) is not None:
            print(f"Belief: {belief}")


@dataclass(frozen=True)
class _Made:
    """The evaluation of one run, to be printed or saved."""

    run: Run
    evaluated: Evaluated
    subject: dict[str, Any]
    is_of_run: bool  # whether the family is that of the training
    expected: Expected | None  # what the recipe expects
    has_changed: bool  # whether the user's code is not that of the training

    def as_json(self) -> dict[str, Any]:
        return {**self.evaluated.evaluation.as_json(), **self.subject}

    def save(self, arguments: Arguments) -> tuple[Path, Path | None, Path]:
        """Save it into the run; returns the paths of its JSON, of its table where one is asked for, and of its plot."""
        from experiments.cli.plots import plot_run
        from experiments.experiment.evaluating import SIZES

        evaluation, trainer = self.evaluated.evaluation, self.evaluated.trainer
        num_points = len(evaluation.points) - (1 - evaluation.measure.first)
        sizes = {name: value for name in SIZES if (value := getattr(arguments, name)) is not None}
        settings = (f"{name}={value}" for name, value in self.evaluated.settings.items())
        suffix = "".join(f"_{value}{name}" for name, value in sizes.items())
        suffix += "".join("_" + re.sub(r"[^\w.=-]", "", setting) for setting in settings)
        suffix += "_deterministic" if arguments.deterministic else ""
        suffix += f"_i{trainer.iteration}_s{arguments.seed}{'_with_current' if self.has_changed else ''}"
        name = f"evaluation_{arguments.split}_{arguments.tasks}x{num_points}{suffix}"
        saved = self.run.save_evaluation(evaluation, self.subject, name)
        table = None if arguments.per_task is None else self.run.save_per_task(evaluation, name)
        return saved, table, plot_run(self.run, evaluation, name, of_run=self.is_of_run, expected=self.expected)

    def save_belief(self, name: str, seed: int) -> str | None:
        """Save what the agent believes of the goal as <name>.png; returns its path and how far it is off, or None."""
        from experiments.cli.belief import draw_beliefs

        trainer, num_points = self.evaluated.trainer, len(self.evaluated.evaluation.points)
        beliefs = draw_beliefs(trainer.family, trainer.agent, num_points, seed=seed)
        return None if beliefs is None else f"{self.run.save_picture(name, beliefs.png)}{beliefs}"


def _evaluate(run: Run, arguments: Arguments, of_parts: Sequence[str]) -> _Made:
    """Evaluate one run.

    Raises:
        UserError: when it cannot be read or evaluated so.
    """
    from experiments.cli.tables import identity
    from experiments.experiment.evaluating import SIZES, evaluate_run
    from experiments.experiment.reading import read

    reading = read(run, arguments.code)
    trained = reading.experiment
    if arguments.device is not None:
        trained = replace(trained, device=arguments.device)
    asked = _with_fields(trained, of_parts)
    checkpoint = run.checkpoint(arguments.checkpoint)
    evaluated = evaluate_run(
        run,
        trained,
        asked,
        split=arguments.split,
        tasks=arguments.tasks,
        points=arguments.points,
        checkpoint=checkpoint,
        seed=arguments.seed,
        sizes={name: value for name in SIZES if (value := getattr(arguments, name)) is not None},
        deterministic=arguments.deterministic,
        through=arguments.through,
    )
    subject = identity(evaluated.trainer, checkpoint, arguments.seed, reading.code)
    return _Made(run, evaluated, subject, asked.family == trained.family, trained.expected, reading.has_changed)


def _evaluate_grid(run: Run, arguments: Arguments, of_parts: Sequence[str]) -> None:
    """Evaluate one run at every point of a grid, and print and save the table.

    Raises:
        UserError: when it cannot be read or evaluated so.
    """
    from experiments.cli.grid import draw_grid, print_grid
    from experiments.experiment.reading import read
    from experiments.experiment.sensitivity import Axis, evaluate_grid

    axes = [Axis.of(text) for text in arguments.grid]
    trained = read(run, arguments.code).experiment
    if arguments.device is not None:
        trained = replace(trained, device=arguments.device)
    settings = {name: getattr(arguments, name) for name in ("split", "tasks", "points", "seed", "deterministic")}
    settings |= {"through": arguments.through, "checkpoint": run.checkpoint(arguments.checkpoint)}
    cells = list(evaluate_grid(run, _with_fields(trained, of_parts), axes, **settings))
    found = [{"settings": cell.settings, **cell.evaluation.as_json()} for cell in cells]
    if arguments.json:
        print(json_format.dumps(found))
        return
    print_grid(axes, cells)
    values = "_".join(f"{axis.label}={','.join(map(str, axis.values))}" for axis in axes)
    values = re.sub(r"[^\w.,=-]", "", values)
    name = f"sensitivity_{arguments.split}_{arguments.tasks}_{values}_s{arguments.seed}"
    print(f"Saved: {run.save_grid(name, found)}")
    print(f"Plot:  {run.save_picture(name, draw_grid(axes, cells))}")


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
