"""Learning to search from past searches: the best settings of similar families are tried first.

As Feurer, Springenberg, Hutter (Initializing Bayesian hyperparameter optimization via meta-learning, 2015): families
are compared by features that are known before any training, and the first trials of a new sweep are settings that did
best on the most similar families. Differences:

1. Features are sizes and scales of the families here, each compared by its order of magnitude; a distance is the mean
   over the features that both families have, where the paper learns or normalises over a collection of data sets.
2. A setting counts by its rank among the runs on its own family and never by its value: a return of one family says
   nothing beside a return of another. Salinas, Shen, Perrone (A quantile-based approach for hyperparameter transfer
   learning, 2020) put ranks into a model together with the new values. That needs many evaluations on each family; with
   the tens that there are here, past settings are only proposed, and all values that the sampler sees are measured on
   the family itself.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from experiments.experiment.definition import Experiment, from_config
from experiments.workbench.sweeping.objective import VALIDATION_SEED, Objective, validation_scores, validation_split
from experiments.workbench.sweeping.space import MEASURING, Choice, Space, value_at
from metarl.errors import RunError, UserError
from metarl.fewshot.episode import FewShotFamily
from metarl.fewshot.problem import Classification
from metarl.run.directory import Run
from metarl.statistics import Scores

_NUM_TASKS = 100  # from which a family's known returns and scales are estimated


@dataclass(frozen=True)
class PastTrial:
    """Settings that were tried on another family."""

    values: dict[str, Any]  # of the fields that are searched now, by name
    similarity: float  # of its family to the one of the sweep, in (0, 1]
    quality: float  # its rank among the settings on its family, from near 0 for the worst to near 1 for the best
    source: str  # the directory of its first run

    @property
    def weight(self) -> float:
        return self.similarity * self.quality

    @property
    def described(self) -> str:
        values = ", ".join(f"{name}={_short(value)}" for name, value in self.values.items())
        return f"{values} (similarity {self.similarity:.2f}, rank {self.quality:.2f}, {self.source})"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def features(family: Any) -> dict[str, float]:
    """What is known of a family before any training: sizes, lengths, and scores of knowing nothing or everything."""
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    if isinstance(family, FewShotFamily):
        episode = family.episode(1 if family.varies else _NUM_TASKS, "train", generator=generator)
        problem = family.problem
        classifies = isinstance(problem, Classification)
        unknowing = 1 / problem.ways if isinstance(problem, Classification) else float(episode.query.y.square().mean())
        return {
            "classifies": float(classifies),
            "input_size": float(math.prod(problem.input_shape)),
            "output_size": float(problem.output_size),
            "shots": float(family.shots),
            "unknowing": unknowing,
        }
    tasks = family.sample(_NUM_TASKS, validation_split(family), generator)
    bounds = family.bounds(tasks, family.num_episodes) if hasattr(family, "bounds") else {}
    known = {name: float(torch.as_tensor(values).double().mean()) for name, values in bounds.items()}
    is_discrete = isinstance(family.action_space, spaces.Discrete)
    return {
        "observation_size": float(math.prod(family.observation_space.shape)),
        "action_size": float(family.action_space.n if is_discrete else math.prod(family.action_space.shape)),
        "is_discrete": float(is_discrete),
        "horizon": float(family.horizon),
        "num_episodes": float(family.num_episodes),
        **known,
    }


def similarity(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """exp(-distance) of two families' features, in (0, 1]; 0 where they have none in common.

    The distance is the mean over common features of |asinh(a) - asinh(b)|: of orders of magnitude, signed.
    """
    common = [name for name in one if name in other and math.isfinite(one[name]) and math.isfinite(other[name])]
    if not common:
        return 0.0
    return math.exp(-fmean(abs(math.asinh(one[name]) - math.asinh(other[name])) for name in common))


def past_trials(folders: Iterable[Path], space: Space, objective: Objective) -> tuple[list[PastTrial], list[str]]:
    """Past settings in the order in which they are to be tried, and notes on what was left out.

    folders: of runs, or of sweeps. Runs on the sweep's own family count by their validation tasks only, so no test task
    has a say.

    Raises:
        UserError: when a folder has no runs, or nothing of use.
    """
    target = space.settings()
    own_features, own_family = features(target.family), _family_of(target)
    notes: list[str] = []
    found: list[PastTrial] = []
    for folder in folders:
        runs = sorted(file.parent for file in folder.glob("**/config.json"))
        if not runs:
            raise UserError(f"--warm-start is {str(folder)!r}; there are no runs in it")
        by_family: dict[str, dict[str, list[_Outcome]]] = defaultdict(lambda: defaultdict(list))
        for path in runs:
            try:
                outcome = _outcome(path, own_family, objective)
            except (UserError, LookupError, TypeError) as error:
                notes.append(f"{path} is left out: {error}")
                continue
            if outcome is not None:
                by_family[outcome.family][outcome.settings].append(outcome)
        for of_family in by_family.values():
            try:
                found += _ranked(list(of_family.values()), space, own_features)
            except (UserError, ValueError) as error:  # of a family whose data are missing
                notes.append(f"--warm-start {folder}: a family is left out: {error}")
        if not by_family:
            notes.append(f"--warm-start {folder}: none of its {len(runs)} runs is finished and of use")
    if not found:
        raise UserError(
            f"--warm-start has nothing of use: {notes[0] if notes else 'no run has a field that is searched'}"
        )
    return sorted(found, key=lambda past: -past.weight), notes


@dataclass(frozen=True)
class _Outcome:
    """A finished run."""

    path: Path
    config: dict[str, Any]
    family: str  # its family's settings, as one text
    settings: str  # all that it shares with its repetitions under other seeds
    experiment: Experiment[Any, Any]
    score: float  # the higher, the better


def _outcome(path: Path, own_family: str, objective: Objective) -> _Outcome | None:
    """The outcome of a run; None where it is not finished, or was only measured on test tasks of the sweep's family.

    Raises:
        UserError: when it cannot be read.
    """
    config = Run(path).config()
    experiment = from_config(config, path)
    family = _family_of(experiment)
    num_iterations = experiment.train.num_iterations
    scores, higher = validation_scores(path, num_iterations), _higher_is_better(path)
    if scores is None and family != own_family:
        scores = _test_scores(path, num_iterations)
    if scores is None:
        return None
    own = replace(objective, higher_is_better=higher)
    score = float(own.by_task(scores).mean()) * (1 if own.maximises else -1)
    train = {name: value for name, value in config["train"].items() if name not in MEASURING}
    settings = json.dumps({"agent": config["agent"], "train": train}, sort_keys=True)
    return _Outcome(path, config, family, settings, experiment, score if math.isfinite(score) else -math.inf)


def _ranked(repeated: Sequence[Sequence[_Outcome]], space: Space, own_features: Mapping[str, float]) -> list[PastTrial]:
    """The settings that were tried on one family, each with its rank; those that differ in the seed only are one."""
    near = similarity(own_features, features(repeated[0][0].experiment.family))
    ordered = sorted(repeated, key=lambda outcomes: fmean(outcome.score for outcome in outcomes))
    trials = []
    for rank, outcomes in enumerate(ordered):
        values = _values(space, outcomes[0])
        if values and near > 0:
            trials.append(PastTrial(values, near, (rank + 0.5) / len(ordered), str(outcomes[0].path)))
    return trials


def _values(space: Space, outcome: _Outcome) -> dict[str, Any]:
    """The values of a run in the space: of a range, the nearest one; none where a list does not have the run's own."""
    values: dict[str, Any] = {}
    for dimension in space.all:
        try:
            own = value_at(outcome.config, dimension.name)
        except (LookupError, TypeError):
            continue
        value = _chosen(space, dimension, own) if isinstance(dimension, Choice) else dimension.nearest(own)
        if value is not None:
            values[dimension.name] = value
    return values


def _chosen(space: Space, choice: Choice, own: Any) -> str | None:
    """The words of the choice that a run has made; None where it is not among them."""
    inner = {name.removeprefix(f"{choice.name}.") for name in space.having if name.startswith(f"{choice.name}.")}

    def comparable(value: Any) -> str:
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if name not in inner} | {"of": sorted(value)}
        return json.dumps(value, sort_keys=True)

    for text in choice.choices:
        if comparable(space.value_of(choice.name, text)) == comparable(own):
            return text
    return None


def _family_of(experiment: Experiment[Any, Any]) -> str:
    return repr(experiment.family)


def _higher_is_better(path: Path) -> bool:
    """The direction of a run's scores, from any of its evaluations."""
    for file in sorted(path.glob("evaluation_*.json")):
        try:
            return bool(json.loads(file.read_bytes())["measure"]["higher_is_better"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return True


def _test_scores(path: Path, num_iterations: int) -> Scores | None:
    """The scores [points, N] of a run on the test tasks of its own family, which is not the sweep's."""
    file = path / "evaluation_test.json"
    try:
        evaluation = json.loads(file.read_bytes())
        finished = evaluation["iteration"] >= num_iterations
        return np.array(evaluation["per_task"]["scores"], dtype=float) if finished else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"cannot read {file}: {error}") from error
