"""Few-shot episodes as the outer loop's experience: a support and a query set of each of many fresh tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from metarl.evaluation import Evaluation
from metarl.fewshot.episode import (
    Digest,
    FewShotEpisode,
    FewShotFamily,
    FewShotLearner,
    FewShotLearnerConfig,
    generator_of,
)
from metarl.fewshot.problem import Classification, Outcome
from metarl.protocols import Split
from metarl.records import cat
from metarl.source import Draw, TrainConfig, check_kinds

CURVE_STEPS = 10  # of adaptation, in the adaptation curve
_NUMBERS_AT_ONCE = 1_000_000  # in the inputs of the test tasks that are predicted together


class LearnsFromEpisodes:
    """What makes a dataclass the configuration of a few-shot learner, together with a `make_learner` of its own."""

    def make_source(self, family: Any, train: TrainConfig, generators: Mapping[str, torch.Generator]) -> FewShotSource:
        """Support and query sets of fresh tasks."""
        return FewShotSource(self, family, train, generators)  # pyright: ignore[reportArgumentType], has make_learner


class FewShotSource:
    """Draws `num_tasks` fresh training tasks, with the family's own numbers of shots and queries.

    Every batch of training tasks, and every test task, is a function of a seed and its number.

    Raises:
        ValueError: when there are copies, or the family cannot give what it says, such as for want of its data.
    """

    unit = "examples"
    unit_rate = "examples/s"
    num_diverged = 0

    def __init__(
        self,
        config: FewShotLearnerConfig,
        family: FewShotFamily,
        train: TrainConfig,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        check_kinds(config, family, acts=False, fits=isinstance(family, FewShotFamily))
        if train.copies != 1:
            raise ValueError(f"copies is {train.copies}; must be 1 for few-shot families such as {family.name}")
        family.training.episode(1, "train", generator=torch.Generator().manual_seed(0))  # what cannot be drawn is known
        self.family, self.num_tasks = family, train.num_tasks
        self._config = config
        self.problem = family.problem
        self.num_points = CURVE_STEPS if train.num_points is None else train.num_points
        self.measure = self.problem.measure  # until a learner says what its adaptation is counted in
        self.score_tag = f"train/query_{self.measure.name}"
        self._num_steps_given = train.num_points is not None
        self._generators = generators

    def make_learner(self, num_iterations: int) -> FewShotLearner:
        """A fresh learner of the configuration.

        Raises:
            ValueError: when the configuration does not fit the family's problem, or the family has no tasks for the
                points of the learner's curve.
        """
        learner = self._config.make_learner(
            self.problem, num_iterations=num_iterations, generator=self._generators["initialisation"]
        )
        self.measure = replace(self.problem.measure, point=learner.point)
        if learner.point != "step" and not self._num_steps_given:
            self.num_points = _most_points(self.family)
        shots, queries = _shots(learner, self.family, self.num_points), self.family.test_queries  # known at once, too
        self.family.episode(1, "test", shots=shots, queries=queries, generator=torch.Generator().manual_seed(0))
        return learner

    def draw(self, learner: FewShotLearner) -> Draw[FewShotEpisode]:
        """A support and a query set of each of `num_tasks` training tasks."""
        episode = self.family.training.episode(self.num_tasks, "train", generator=self._next_generator())
        return Draw(episode, episode.num_examples, {})

    def _next_generator(self) -> torch.Generator:
        """Seeded by the training's own stream, whose state is saved: one number of it for each batch."""
        stream = self._generators["task"]
        seed = int(torch.randint(2**62, (), generator=stream, device=stream.device))
        return torch.Generator(stream.device).manual_seed(seed)

    def evaluate(
        self,
        learner: FewShotLearner,
        *,
        agent_name: str,
        split: Split,
        num_tasks: int,
        num_points: int | None,
        generator: torch.Generator,
        family: FewShotFamily | None = None,
        deterministic: bool = False,
    ) -> Evaluation:
        """The score on fresh queries after 0, 1, ... points (`num_points`, or the source's own number) of adaptation.

        Learners that absorb shots or examples are given as many; others have the family's shots. family: another one
        than that of training, such as one with more classes in a task.

        Raises:
            ValueError: when a number is below one, the family does not declare the split, or has fewer shots than are
                asked for, or the learner cannot predict for this family, as when its inputs have another shape.
        """
        if deterministic:
            raise ValueError(f"deterministic is True; {agent_name} predicts and does not act, so it must be False")
        own_points = self.num_points if family is None or learner.point == "step" else _most_points(family)
        family = self.family if family is None else family
        if family.problem.input_shape != self.problem.input_shape:
            shapes = f"{list(family.problem.input_shape)}; this learner reads {list(self.problem.input_shape)}"
            raise ValueError(f"inputs of {family.name} have shape {shapes}")
        num_points = own_points if num_points is None else num_points
        for name, value in (("num_tasks", num_tasks), ("num_points", num_points)):
            if value < 1:
                raise ValueError(f"{name} is {value}; must be at least 1")
        shots = _shots(learner, family, num_points)
        outcomes: list[Outcome] = []
        digest, seconds = Digest(), 0.0
        for episode in _test_tasks(family, split, num_tasks, shots, generator):
            started = time.perf_counter()
            predictions = learner.predictions(episode, num_points)
            if predictions.is_cuda:
                torch.cuda.synchronize(predictions.device)
            seconds += time.perf_counter() - started
            outcomes.append(family.problem.outcome(predictions, episode.query))
            digest.add(episode)
        ways = {"ways": family.problem.ways} if isinstance(family.problem, Classification) else {}
        sizes = {**ways, "shots": family.shots if shots is None else shots, "queries": family.test_queries}
        if family.varies:
            sizes = {"ways": f"up to {sizes['ways']}", "shots": "varied", "queries": f"up to {family.test_queries}"}
        facts: dict[str, Any] = {**sizes, **learner.facts, "milliseconds_per_task": 1000 * seconds / num_tasks}
        evaluation = Evaluation.of(
            torch.cat([outcome.score for outcome in outcomes], 1),
            family=family.name,
            agent=agent_name,
            split=split,
            measure=self.measure,
            trained_points=self._trained_points(learner),
        )
        return replace(evaluation, metrics=family.problem.metrics(outcomes), facts=facts | {"episodes": str(digest)})

    def _trained_points(self, learner: FewShotLearner) -> int | None:
        """The points of the curve that training had, that before adaptation among them; None: their number varies."""
        if learner.point == "step":
            steps = getattr(self._config, "num_inner_steps", None)
            return None if steps is None else steps + 1
        return None if self.family.varies else self.family.training.shots + 1

    def state_dict(self, *, to_train: bool = True) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        pass


def _most_points(family: FewShotFamily) -> int:
    """Points of the curve of a learner that absorbs the support: its shots, or one where their number varies."""
    return 1 if family.varies else family.shots


def _shots(learner: FewShotLearner, family: FewShotFamily, num_points: int) -> int | None:
    """The shots of a test task for a curve of so many points; None: the family's own.

    Raises:
        ValueError: when points are to be counted in shots, and their number varies.
    """
    if learner.point == "step":
        return None
    if not family.varies:
        return num_points
    if num_points > 1:
        raise ValueError(f"num_points is {num_points}; tasks have different numbers of shots, so that it must be 1")
    return None


def _test_tasks(
    family: FewShotFamily, split: Split, num_tasks: int, shots: int | None, generator: torch.Generator
) -> Iterator[FewShotEpisode]:
    """Test tasks, as many at once as fit the cache; the one counted i is the same however many are asked for."""
    waiting: list[FewShotEpisode] = []
    for index in range(num_tasks):
        own = generator_of(generator.initial_seed(), index, generator.device)
        episode = family.episode(1, split, shots=shots, queries=family.test_queries, generator=own)
        if waiting and (_shapes(waiting[0]) != _shapes(episode) or len(waiting) * _size(episode) >= _NUMBERS_AT_ONCE):
            yield cat(waiting)
            waiting = []
        waiting.append(episode)
    yield cat(waiting)


def _shapes(episode: FewShotEpisode) -> tuple[torch.Size, torch.Size]:
    return episode.support.x.shape, episode.query.x.shape


def _size(episode: FewShotEpisode) -> int:
    return episode.support.x.numel() + episode.query.x.numel()
