"""An experiment: a task family, an agent and how long to train, as one value that a recipe file holds.

A recipe is a module with a docstring, whose first line describes it, and a module-level `experiment`:

    experiment = Experiment(GridNavi(), RL2Config(hidden_size=64), TrainConfig(num_iterations=400, num_tasks=64))
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Generic, Literal, TypeVar

import torch
import tyro
from pydantic import TypeAdapter, ValidationError

from envs.external import CrashedTooOften
from experiments.experiment.config_json import MOVED, OF_RECIPE, class_path, current, merged, to_json
from experiments.experiment.names import (
    AGENTS,
    LEARNERS,
    OUR_CLASSES,
    experiment_names,
    installed_recipes,
    known,
    suggestion,
)
from experiments.experiment.recipe_file import RECIPE_MODULE, load_file
from metarl._lazy import imported
from metarl.checks import at_least
from metarl.errors import UserError
from metarl.fewshot.episode import FewShotFamily
from metarl.optim import is_expanded, is_optimizer_state
from metarl.protocols import TaskFamily
from metarl.run.directory import Run
from metarl.source import NamesSource
from metarl.trainer import TrainConfig, Trainer

IN_PYTHON = "(an Experiment in Python)"  # the name of an experiment that no recipe has

F = TypeVar("F", bound=TaskFamily | FewShotFamily)
A = TypeVar("A", bound=NamesSource)


@dataclass(frozen=True)
class Expected:
    """The expected result of a recipe on test tasks, and its source."""

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
    seed: int = 0  # the seed of all randomness
    device: Literal["cpu", "cuda"] = "cpu"  # the device of environments and networks
    expected: tyro.conf.Suppress[Expected | None] = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; must be 0 or more")
        at_least(self, 0, "seed", at_most=2**62 - 1)

    @property
    def agent_name(self) -> str:
        """The catalog's name of the agent; for one that is not in the catalog, its class's."""
        path = class_path(self.agent)
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
        except (ValueError, OverflowError, CrashedTooOften) as error:
            raise UserError(str(error)) from error
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise UserError(f"this experiment does not fit the memory: {error}") from error
        except RecursionError as error:
            raise UserError("settings are nested too deeply, such as wrappers around wrappers") from error


def load(name: str) -> Experiment[Any, Any]:
    """The experiment of a recipe, by its name (`grid_navi/rl2`) or the path of its file.

    Raises:
        UserError: when there is none.
    """
    if name.endswith(".py"):
        return experiment_in(load_file(Path(name)), name)
    name = known("experiment", name, experiment_names())
    try:
        module = importlib.import_module(module_of(name))
    except Exception as error:
        if name not in installed_recipes():
            raise
        what = f"{type(error).__name__}: {error}"  # whatever somebody else's module raises
        raise UserError(f"recipe {name} does not load: module {module_of(name)}: {what}") from error
    return experiment_in(module, name)


def module_of(name: str) -> str:
    """The name of the module of a recipe: a file's, one of ours or one of an installed package."""
    if name.endswith(".py"):
        return RECIPE_MODULE
    point = installed_recipes().get(name)
    return f"experiments.recipes.{name.replace('/', '.')}" if point is None else point.module


def experiment_in(module: ModuleType, name: str) -> Experiment[Any, Any]:
    """The experiment in the module of a recipe.

    Raises:
        UserError: when there is none.
    """
    point = installed_recipes().get(name)
    attribute = "experiment" if point is None else point.attr or "experiment"
    experiment = getattr(module, attribute, None)
    if not isinstance(experiment, Experiment):
        raise UserError(f"recipe {name} has no module-level `{attribute} = Experiment(...)`")
    if name.endswith(".py"):
        return replace(experiment, family=_with_data_below(experiment.family, Path(name).parent))
    return experiment


def _with_data_below(family: Any, folder: Path) -> Any:
    """The family with its `data_dir` absolute, where it has one: a relative one is below `folder`."""
    data_dir = getattr(family, "data_dir", None)
    if not isinstance(data_dir, (str, Path)):
        return family
    path = str((folder / Path(data_dir).expanduser()).absolute())
    return replace(family, data_dir=type(data_dir)(path))


def typed(family: Any, agent: Any) -> Any:
    """The type of experiments with these two parts, as tyro and pydantic read it."""
    generic: Any = Experiment
    return generic[family, agent]


def argument_type(experiment: Experiment[Any, Any]) -> Any:
    """The type of an argument that is an experiment with these parts; its fields have no prefix: --seed."""
    return Annotated[typed(type(experiment.family), type(experiment.agent)), tyro.conf.arg(name="")]


def to_config(experiment: Experiment[Any, Any], name: str) -> dict[str, Any]:
    """The content of a run's config.json: every field of every part, and the classes to read them back with.

    What only Python can hold, such as a family's reward function, stays in the recipe and is found there again.
    """
    family = _with_data_below(experiment.family, Path.cwd())
    return {
        "experiment": str(Path(name).resolve()) if name.endswith(".py") else name,
        "family": {"class": class_path(family), **to_json(family)},
        "agent": {"class": class_path(experiment.agent), **to_json(experiment.agent)},
        "train": asdict(experiment.train),
        "seed": experiment.seed,
        "device": experiment.device,
        "expected": None if experiment.expected is None else asdict(experiment.expected),
    }


def recipe_name(config: Mapping[str, Any], where: Path) -> str:
    """The name or path of the recipe of a run in the directory `where`.

    Raises:
        UserError: when the config has none.
    """
    name = config.get("experiment")
    if not isinstance(name, str):
        raise UserError(f"{where}/config.json: experiment is {name!r}; must be the recipe's name or path")
    return name


def needs_recipe(config: Mapping[str, Any]) -> bool:
    """Whether a run's config leaves something to its recipe: a class of no catalog, or what JSON cannot hold."""
    parts = [config.get(part) for part in ("family", "agent")]
    return any(isinstance(part, dict) and (OF_RECIPE in part or not _is_ours(part.get("class"))) for part in parts)


def from_config(
    config: Mapping[str, Any],
    where: Path,
    recipe: Callable[[], Experiment[Any, Any]] | None = None,
    *,
    any_environment: bool = False,
) -> Experiment[Any, Any]:
    """The experiment of a run in the directory `where`, every field checked.

    Nothing that the config names is imported but the classes of our catalogs; any other class is the recipe's, and so
    is what JSON cannot hold. recipe: what loads it where it is needed; None: the installed recipe of the config's name.
    any_environment: whether a Gymnasium environment may be another than the recipe's, as its id can name a module.

    Raises:
        UserError: for an unknown, missing or wrong field; names it.
    """
    config = dict(config)
    name = recipe_name(config, where)
    del config["experiment"]
    for part in ("family", "agent"):
        if not isinstance(config.get(part), dict) or "class" not in config[part]:
            raise UserError(f"{where}/config.json: {part} must be an object with a field 'class'")
    recipe = cache(recipe or (lambda: _installed(name)))
    family, agent = (_class_of(part, config[part]["class"], recipe, where) for part in ("family", "agent"))
    classes: dict[str, Any] = {"family": family, "agent": agent, "train": TrainConfig, "expected": Expected}
    for part, cls in classes.items():
        if isinstance(config.get(part), dict):
            values = {key: value for key, value in config[part].items() if key != "class"}
            config[part] = current(f"{cls.__module__}:{cls.__qualname__}", values)
    of_recipe: dict[str, Any] = {}
    for part, cls in (("family", family), ("agent", agent)):
        if not _is_ours(f"{cls.__module__}:{cls.__qualname__}"):
            _check_environments(config[part], getattr(recipe(), part), f"{where}/config.json: {part}", any_environment)
        if config[part].pop(OF_RECIPE, None) is not None:
            of_recipe[part] = _part_of_recipe(part, config[part], cls, recipe(), where)
            config[part], classes[part] = {}, Any
    for part, cls in {"": Experiment, **classes}.items():
        if cls is not Any:
            _refuse_unknown(config if part == "" else config.get(part), cls, f"{where}/config.json: ", part)
    try:
        kind = typed(classes["family"], classes["agent"])
        experiment = TypeAdapter(kind).validate_json(json.dumps(config), strict=True)
        return replace(experiment, **of_recipe)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(place) for place in first["loc"])
        given = "" if isinstance(first["input"], dict) else f" is {first['input']!r}"
        what = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}/config.json: {field}{given}{': ' if field else ''}{what}") from error


def _installed(name: str) -> Experiment[Any, Any]:
    """The experiment of a recipe that is installed here: one of ours, or of a package with entry points."""
    if name == IN_PYTHON or name.endswith(".py"):
        raise UserError(f"recipe {name} is not one of this installation's; name it with --recipe PATH")
    return load(name)


def _part_of_recipe(
    part: str, values: dict[str, Any], cls: type[Any], recipe: Experiment[Any, Any], where: Path
) -> Any:
    """The recipe's own family or agent, with what the run's config says otherwise."""
    own = getattr(recipe, part)
    if type(own).__qualname__ != cls.__qualname__:  # a class of the recipe's own is made anew at each load
        raise UserError(f"{where}/config.json: the run needs a {cls.__name__}; the recipe has a {type(own).__name__}")
    return merged(own, values, f"{where}/config.json: {part}")


def _check_environments(values: Mapping[str, Any], of_recipe: Any, where: str, any_environment: bool) -> None:
    """Refuse, or announce where any is allowed, a Gymnasium environment that is not the recipe's.

    Raises:
        UserError: naming the environment, by whose id a module can be imported.
    """
    for name, value in values.items():
        own = getattr(of_recipe, name, None)
        if isinstance(value, dict):
            _check_environments(value, own, f"{where}.{name}", any_environment)
        elif name == "env" and isinstance(value, str) and value != own:
            what = f"{where}.env is {value!r}, and the recipe's is {own!r}"
            if not any_environment:
                raise UserError(f"{what}; --trust makes it anyway")
            print(f"metarl: {what}; making the former", file=sys.stderr)


def _refuse_unknown(values: Any, cls: type[Any], where: str, part: str) -> None:
    names = [field.name for field in fields(cls)]
    for key in values if isinstance(values, dict) else ():
        if key not in names:
            raise UserError(f"{where}{part and f'{part}.'}{key} is not a field: {suggestion(key, names)}")


def _is_ours(path: Any) -> bool:
    return isinstance(path, str) and path_now(path) in OUR_CLASSES


def path_now(path: str) -> str:
    """Where a class is now that stood at module:class when an earlier run was made."""
    module, _, name = path.partition(":")
    return f"{MOVED.get(path) or MOVED.get(module, module)}:{name}"


def _class_of(part: str, path: Any, recipe: Callable[[], Experiment[Any, Any]], where: Path) -> type[Any]:
    """The dataclass that a part's "class" names, as module:class: one of our catalogs' or else the recipe's own."""
    named = f"{where}/config.json: {part}.class is {path!r}"
    if not isinstance(path, str) or not all(path.partition(":")):
        raise UserError(f"{named}; must be module:class, such as 'agents.rl2:RL2Config'")
    if _is_ours(path):
        return imported(path_now(path))
    own = getattr(recipe(), part)
    if not is_dataclass(own) or class_path(own) != path_now(path):
        raise UserError(f"{named}; must be in the catalogs of this installation, or the recipe's {class_path(own)!r}")
    return type(own)


def restored(
    experiment: Experiment[Any, Any],
    run: Run,
    checkpoint: str = "latest",
    *,
    to_train: bool,
    other_device: bool = False,
) -> Trainer:
    """The experiment's trainer as a checkpoint of its run left it.

    to_train: with the state of its random streams, which fits only the kind of device that it was saved on.
    other_device: continue with fresh random streams if the saved ones do not fit.

    Raises:
        UserError: when there is no such checkpoint, it is damaged, or it does not fit the run's config.
    """
    trainer = experiment.trainer()
    state = run.load(checkpoint)
    fresh = trainer.state_dict()
    if run.is_packed:
        state = _with_fresh_optimizers(fresh, state)
    try:
        if other_device:
            state = {**state, "generators": trainer.streams_after(state["iteration"], state["generators"])}
        reason = _misfit(fresh, state if to_train else {**state, "generators": {}})
        if reason is None:
            trainer.load_state_dict(state, to_train=to_train)
            return trainer
    except KeyError as error:
        reason = f"it lacks {error}"
    except ValueError as error:
        reason = " ".join(str(error).split())
    except Exception as error:  # whatever a learner's own loading leads to
        lines = str(error).strip().splitlines()  # the first of torch's many lines is a heading
        reason = f"{type(error).__name__}: {' '.join(lines[:2])}"
    file = run.checkpoint_path(checkpoint)
    raise UserError(f"{file} does not fit the settings in {run.path / 'config.json'}: {reason}")


def _with_fresh_optimizers(fresh: Any, saved: Any) -> Any:
    """A saved state in which optimisers that it lacks, as archives leave theirs out, are as in a fresh one."""
    if not (isinstance(fresh, Mapping) and isinstance(saved, Mapping)):
        return saved
    kept = {name: _with_fresh_optimizers(fresh.get(name), value) for name, value in saved.items()}
    return {name: state for name, state in fresh.items() if is_optimizer_state(state)} | kept


def _misfit(fresh: Any, saved: Any, where: str = "") -> str | None:
    """What in a saved state is of another kind or shape than in a fresh one, as far as both have it."""
    if isinstance(fresh, Mapping) and isinstance(saved, Mapping):
        inside = ((key, f"{where}.{key}" if where else str(key)) for key in fresh if key in saved)
        found = (_misfit(fresh[key], saved[key], name) for key, name in inside)
        return next((reason for reason in found if reason is not None), None)
    kinds = (int, float) if type(fresh) is float else (type(fresh),)
    if isinstance(fresh, torch.Tensor) and isinstance(saved, torch.Tensor):
        return tensor_misfit(fresh, saved, where)
    if fresh is not None and type(saved) not in kinds:
        return f"{where} is of type {type(saved).__name__}; must be {type(fresh).__name__}"
    return None


def tensor_misfit(fresh: torch.Tensor, saved: torch.Tensor, where: str) -> str | None:
    """What a saved tensor differs in from a fresh one but for its numbers."""
    if fresh.shape != saved.shape:
        return f"{where} has shape {list(saved.shape)}; must be {list(fresh.shape)}"
    if (fresh.dtype, fresh.layout) != (saved.dtype, saved.layout):
        kinds = (f"{tensor.dtype} and {tensor.layout}".replace("torch.", "") for tensor in (saved, fresh))
        return "{} is {}; must be {}".format(where, *kinds)
    if is_expanded(saved) and not is_expanded(fresh):
        return f"{where} is an expanded tensor; must have a number in memory for each entry"
    return None
