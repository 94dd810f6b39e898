"""An experiment: a task family, an agent and how long to train, as one value that a recipe file holds.

A recipe is a module with a docstring, whose first line describes it, and a module-level `experiment`:

    experiment = Experiment(GridNavi(), RL2Config(hidden_size=64), TrainConfig(num_iterations=400, num_tasks=64))
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from importlib.metadata import EntryPoint
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Generic, Literal, TypeVar

import torch
import tyro
from pydantic import TypeAdapter, ValidationError

from experiments.experiment.config_json import MOVED, OF_RECIPE, current, merged, to_json
from experiments.experiment.names import AGENTS, LEARNERS, experiment_names, installed_recipes, known, suggestion
from experiments.experiment.recipe_file import RECIPE_MODULE, importable, load_file
from metarl.errors import UserError
from metarl.fewshot.episode import FewShotFamily
from metarl.protocols import TaskFamily
from metarl.run.directory import Run
from metarl.source import NamesSource
from metarl.trainer import TrainConfig, Trainer

IN_PYTHON = "(an Experiment in Python)"  # the name of an experiment that no recipe has

F = TypeVar("F", bound=TaskFamily | FewShotFamily)
A = TypeVar("A", bound=NamesSource)


@dataclass(frozen=True)
class Expected:
    """What a recipe should reach on test tasks, and who says so."""

    source: str
    at_least: float | None = None  # the mean undiscounted return
    at_most: float | None = None  # the mean error, where lower is better
    point: int | None = None  # an episode, counted from one, or a step; None: the sum over the trial, or the last step

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"expected has at_least {self.at_least} and at_most {self.at_most}; one of them is needed")

    @property
    def limit(self) -> float:
        limit = self.at_least if self.at_most is None else self.at_most
        assert limit is not None
        return limit

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_most is None else value <= self.limit


@dataclass(frozen=True)
class Experiment(Generic[F, A]):
    """Everything that decides a run's numbers."""

    family: F
    agent: A
    train: TrainConfig
    seed: int = 0  # the seed of everything random
    device: Literal["cpu", "cuda"] = "cpu"  # the device of environments and networks
    expected: tyro.conf.Suppress[Expected | None] = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; must be 0 or more")

    @property
    def agent_name(self) -> str:
        """The catalog's name of the agent; for one that is not in the catalog, its class's."""
        path = _path_of(self.agent)
        return next((name for name, where in (AGENTS | LEARNERS).items() if where == path), type(self.agent).__name__)

    def trainer(self) -> Trainer:
        """A fresh trainer on the experiment's device.

        Raises:
            UserError: when there is no such device, or the parts do not fit together.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("device is 'cuda', but torch finds no CUDA GPU on this machine; use --device cpu")
        if not isinstance(self.agent, NamesSource):
            agent = type(self.agent).__name__
            raise UserError(f"agent is {agent}; must be the configuration of a learner, which has `make_source`")
        try:
            return Trainer(
                self.family,
                self.agent,
                self.train,
                agent_name=self.agent_name,
                seed=self.seed,
                device=self.device,
            )
        except ValueError as error:
            raise UserError(str(error)) from error


def load(name: str) -> Experiment[Any, Any]:
    """The experiment of a recipe, by its name (`grid_navi/rl2`) or the path of its file.

    Raises:
        UserError: when there is none.
    """
    attribute = "experiment"
    if name.endswith(".py"):
        module = load_file(Path(name))
    else:
        name = known("experiment", name, experiment_names())
        point = installed_recipes().get(name)
        if point is None:
            module = importlib.import_module(f"experiments.recipes.{name.replace('/', '.')}")
        else:
            module, attribute = _module_of(point), point.attr or attribute
    experiment = getattr(module, attribute, None)
    if not isinstance(experiment, Experiment):
        raise UserError(f"recipe {name} has no module-level `{attribute} = Experiment(...)`")
    if name.endswith(".py"):
        return replace(experiment, family=_with_data_below(experiment.family, Path(name).parent))
    return experiment


def _with_data_below(family: Any, folder: Path) -> Any:
    """The family with its `data_dir` absolute, where it has one: a relative one is below `folder`."""
    data_dir = getattr(family, "data_dir", None)
    if not isinstance(data_dir, (str, Path)) or not is_dataclass(family):
        return family
    path = str((folder / Path(data_dir).expanduser()).absolute())
    return replace(family, data_dir=type(data_dir)(path))  # pyright: ignore[reportCallIssue], the field is there


def _module_of(point: EntryPoint) -> ModuleType:
    """The module of a recipe of an installed package."""
    try:
        return importlib.import_module(point.module)
    except Exception as error:  # whatever somebody else's module raises
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"recipe {point.name} does not load: module {point.module}: {what}") from error


def typed(family: Any, agent: Any) -> Any:
    """The type of experiments with these two parts, as tyro and pydantic read it."""
    generic: Any = Experiment
    return generic[family, agent]


def argument_type(experiment: Experiment[Any, Any]) -> Any:
    """The type of an argument that is an experiment with these parts; its fields have no prefix: --seed."""
    return Annotated[typed(type(experiment.family), type(experiment.agent)), tyro.conf.arg(name="")]


def to_config(experiment: Experiment[Any, Any], name: str) -> dict[str, Any]:
    """What a run's config.json holds: every field of every part, and the classes to read them back with.

    What only Python can hold, such as a family's reward function, stays in the recipe and is found there again.
    """
    family = _with_data_below(experiment.family, Path.cwd())
    return {
        "experiment": str(Path(name).resolve()) if name.endswith(".py") else name,
        "family": {"class": _path_of(family), **to_json(family)},
        "agent": {"class": _path_of(experiment.agent), **to_json(experiment.agent)},
        "train": asdict(experiment.train),
        "seed": experiment.seed,
        "device": experiment.device,
        "expected": None if experiment.expected is None else asdict(experiment.expected),
    }


def from_config(config: dict[str, Any], where: Path) -> Experiment[Any, Any]:
    """The experiment of a run in the directory `where`, every field checked.

    Raises:
        UserError: for an unknown, missing or wrong field; names it.
    """
    config = dict(config)
    name = config.pop("experiment", None)
    if not isinstance(name, str):
        raise UserError(f"{where}/config.json: experiment is {name!r}; must be the recipe's name or path")
    recipe = Path(name)
    for part in ("family", "agent"):
        if not isinstance(config.get(part), dict) or "class" not in config[part]:
            raise UserError(f"{where}/config.json: {part} must be an object with a field 'class'")
    family, agent = (_class_of(part, config[part]["class"], recipe, where) for part in ("family", "agent"))
    for part, cls in (("family", family), ("agent", agent), ("train", TrainConfig), ("expected", Expected)):
        if isinstance(config.get(part), dict):
            values = {key: value for key, value in config[part].items() if key != "class"}
            config[part] = current(f"{cls.__module__}:{cls.__qualname__}", values)
    family_of_recipe = None
    if config["family"].pop(OF_RECIPE, None):
        family_of_recipe = _family_of_recipe(config["family"], family, recipe, where)
        config["family"] = {}
    checks = {"": Experiment, "family": family, "agent": agent, "train": TrainConfig}
    for part, cls in checks.items():
        _refuse_unknown(config if part == "" else config.get(part), cls, f"{where}/config.json: ", part)
    kind = typed(family if family_of_recipe is None else Any, agent)
    try:
        experiment = TypeAdapter(kind).validate_json(json.dumps(config), strict=True)
        return experiment if family_of_recipe is None else replace(experiment, family=family_of_recipe)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(place) for place in first["loc"])
        given = "" if isinstance(first["input"], dict) else f" is {first['input']!r}"
        what = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}/config.json: {field}{given}{': ' if field else ''}{what}") from error


def _family_of_recipe(values: dict[str, Any], cls: type[Any], recipe: Path, where: Path) -> Any:
    """The recipe's own family, with what the run's config says otherwise."""
    if str(recipe) == IN_PYTHON:
        raise UserError(
            f"{where} was trained from Python, and its family has parts that only Python can hold; "
            "pass the Run that metarl.train returned, or train from a recipe file"
        )
    family = load(str(recipe)).family
    if type(family).__qualname__ != cls.__qualname__:  # a class of the recipe's own is made anew at each load
        raise UserError(f"{where}/config.json: the run needs a {cls.__name__}, and recipe {recipe} has none any more")
    return merged(family, values, f"{where}/config.json: family")


def _refuse_unknown(values: Any, cls: type[Any], where: str, part: str) -> None:
    names = [field.name for field in fields(cls)]
    for key in values if isinstance(values, dict) else ():
        if key not in names:
            raise UserError(f"{where}{part and f'{part}.'}{key} is not a field: {suggestion(key, names)}")


def _path_of(value: Any) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _class_of(part: str, path: Any, recipe: Path, where: Path) -> type[Any]:
    """The dataclass that a part's "class" names, as module:class."""
    named = f"{where}/config.json: {part}.class is {path!r}"
    if not isinstance(path, str) or not all(path.partition(":")):
        raise UserError(f"{named}; must be module:class, such as 'agents.rl2:RL2Config'")
    module_name, _, class_name = path.partition(":")
    module_name = MOVED.get(path) or MOVED.get(module_name, module_name)
    beside = importable(recipe.parent) if recipe.suffix == ".py" else nullcontext()
    try:
        with beside:
            module = load_file(recipe) if module_name == RECIPE_MODULE else importlib.import_module(module_name)
        found = attrgetter(class_name)(module)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"{named}; there is no such class: {error}") from error
    if not isinstance(found, type) or not is_dataclass(found):
        raise UserError(f"{named}; must be a dataclass")
    return found


def restored(experiment: Experiment[Any, Any], run: Run, checkpoint: str = "latest", *, to_train: bool) -> Trainer:
    """The experiment's trainer as a checkpoint of its run left it.

    to_train: with the state of its random streams, which fits only the kind of device that it was saved on.

    Raises:
        UserError: when there is no such checkpoint, it is damaged, or it does not fit the run's config.
    """
    trainer = experiment.trainer()
    state = run.load(checkpoint)
    fresh = trainer.state_dict()
    try:
        reason = _misfit(fresh, state if to_train else {**state, "generators": {}})
        if reason is None:
            trainer.load_state_dict(state, to_train=to_train)
            return trainer
    except KeyError as error:
        reason = f"it lacks {error}"
    except Exception as error:  # whatever a learner's own loading leads to
        lines = str(error).strip().splitlines()  # the first of torch's many lines is a heading
        reason = f"{type(error).__name__}: {' '.join(lines[:2])}"
    file = run.path / "checkpoints" / f"{checkpoint}.pt"
    raise UserError(f"{file} does not fit the settings in {run.path / 'config.json'}: {reason}")


def _misfit(fresh: Any, saved: Any, where: str = "") -> str | None:
    """What in a saved state is of another kind or shape than in a fresh one, as far as both have it."""
    if isinstance(fresh, Mapping) and isinstance(saved, Mapping):
        inside = ((key, f"{where}.{key}" if where else str(key)) for key in fresh if key in saved)
        found = (_misfit(fresh[key], saved[key], name) for key, name in inside)
        return next((reason for reason in found if reason is not None), None)
    kinds = (int, float) if type(fresh) in (int, float) else (type(fresh),)
    if fresh is not None and type(saved) not in kinds and not isinstance(saved, type(fresh)):
        return f"{where} is of type {type(saved).__name__}; must be {type(fresh).__name__}"
    if isinstance(fresh, torch.Tensor) and fresh.shape != saved.shape:
        return f"{where} has shape {list(saved.shape)}; must be {list(fresh.shape)}"
    return None
