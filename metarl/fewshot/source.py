"""Few-shot episodes as the outer loop's experience: support and query sets of fresh tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from metarl.checks import not_negative
from metarl.errors import UserError
from metarl.evaluation import Evaluation, Tail, tail_metrics
from metarl.fewshot.augmentation import with_label_offset, with_permuted_labels
from metarl.fewshot.bottleneck import Bottlenecked
from metarl.fewshot.episode import (
    ChecksData,
    ChecksEpisodes,
    FewShotEpisode,
    FewShotFamily,
    FewShotLearner,
    FewShotLearnerConfig,
    HasChoosableTasks,
    generator_of,
)
from metarl.fewshot.problem import Classification, Outcome
from metarl.memory import check_memory
from metarl.nets.norm import Norm
from metarl.parallel import Share, current, exchanged, process_count, process_index
from metarl.protocols import Split
from metarl.records import Digest, Record, cat
from metarl.source import Draw, TrainConfig, check_kinds, sampler_of
from metarl.task_samplers.class_aware import ClassAwareSampler
from metarl.task_samplers.sampler import UniformSampler

CURVE_STEPS = 10  # number of adaptation steps in the adaptation curve
_NUMBERS_AT_ONCE = 1_000_000  # input values of the test tasks processed together


@dataclass(frozen=True)
class LearnsFromEpisodes:
    """A mixin that makes a dataclass with `make_learner` the configuration of a few-shot learner."""

    _: KW_ONLY
    permute_labels: bool = False  # whether the classes of each training task are renumbered at random
    label_offset: float = 0.0  # standard deviation of a random number added to all labels of a training function

    def make_source(self, family: Any, train: TrainConfig, generators: Mapping[str, torch.Generator]) -> FewShotSource:
        """Support and query sets of fresh tasks.

        Raises:
            ValueError: when labels are to be augmented in a way that the family's do not allow, or as `FewShotSource`.
        """
        not_negative(self, "label_offset")
        has_classes = isinstance(getattr(family, "problem", None), Classification)
        if self.permute_labels and not has_classes:
            raise ValueError("permute_labels is True; must be False for families without classes")
        if self.label_offset and has_classes:
            raise ValueError(f"label_offset is {self.label_offset}; must be 0 for families with classes")
        return FewShotSource(self, family, train, generators)  # pyright: ignore[reportArgumentType], has make_learner


class FewShotSource:
    """Draws `num_tasks` fresh training tasks, with the family's own numbers of shots and queries.

    Every batch of training tasks, and every test task, is determined by a seed and its number.

    Raises:
        ValueError: when copies is not 1, graphs is True, or the family cannot produce episodes (its data are missing or
            too few).
    """

    shares_tasks = True
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
        if train.graphs:
            raise ValueError(f"graphs is True; must be False for few-shot families such as {family.name}")
        if isinstance(family, ChecksData):
            family.check_data()
        _check_memory(family, train.num_tasks)
        self._first_episode = family.training.episode(1, "train", generator=torch.Generator().manual_seed(0))
        self.family, self.num_tasks = family, train.num_tasks
        self._config = config
        self.problem = family.problem
        self.num_points = CURVE_STEPS if train.num_points is None else train.num_points
        self.measure = self.problem.measure  # until the learner sets the unit of its curve
        self.score_tag = f"train/query_{self.measure.name}"
        self._num_steps_given = train.num_points is not None
        self.validation_split: Split = "test"  # until the learner sets the shots of a task
        self._generators = generators
        training = family.training
        chooses = training.tasks_have if isinstance(training, HasChoosableTasks) else "nothing to choose by"
        self.sampler = sampler_of(train, self._fresh_tasks, generators["task"].device, chooses=chooses)

    def make_learner(self, num_iterations: int) -> FewShotLearner:
        """A fresh learner of the configuration.

        Raises:
            ValueError: when the configuration does not fit the family's problem, or the family cannot provide enough
                shots for the learner's curve.
        """
        learner = self._config.make_learner(
            self.problem, num_iterations=num_iterations, generator=self._generators["initialisation"]
        )
        if process_count() > 1:
            _check_shared(learner)
        if cost := getattr(self._config, "information_cost", 0.0):
            if process_count() > 1:
                raise ValueError(f"information_cost is {cost:g}; must be 0 for {process_count()} processes")
            learner = Bottlenecked(learner, cost)  # pyright: ignore[reportArgumentType], as all with this setting
        self.measure = replace(self.problem.measure, point=learner.point)
        if learner.point != "step" and not self._num_steps_given:
            self.num_points = _most_points(self.family)
        shots, queries = _shots(learner, self.family, self.num_points), self.family.test_queries  # fails early too
        test = self.family.episode(1, "test", shots=shots, queries=queries, generator=torch.Generator().manual_seed(0))
        self.validation_split = "val" if self._has_validation(shots) else "test"
        if isinstance(learner, ChecksEpisodes):
            device = self._generators["initialisation"].device
            learner.check_episodes(self._first_episode.to(device), test.to(device))
        return learner

    def _has_validation(self, shots: int | None) -> bool:
        """Whether the family has validation tasks of the size of the test tasks."""
        if "val" not in getattr(self.family, "splits", ()):
            return False
        try:
            generator = torch.Generator().manual_seed(0)
            self.family.episode(1, "val", shots=shots, queries=self.family.test_queries, generator=generator)
        except (ValueError, UserError):  # too few classes, or images of one; their files are not here
            return False
        return True

    def draw(self, learner: FewShotLearner) -> Draw[FewShotEpisode]:
        """The support and query sets of `num_tasks` training tasks, which the sampler proposes.

        Its scores are those of the queries before the learner has learned from them. Of several processes, each has its
        share of the tasks.
        """
        family, amount, share = self.family.training, 0, current() or Share(self.num_tasks)
        while True:
            generator = self._next_generator()
            if isinstance(self.sampler, UniformSampler) or not isinstance(family, HasChoosableTasks):
                episode = family.episode(self.num_tasks, "train", generator=generator)
                return Draw(share.own(self._augmented(episode, generator)), episode.num_examples, {})
            tasks = self.sampler.propose(self.num_tasks, generator)
            episode = family.episode_of(tasks, "train", generator=generator)
            amount += episode.num_examples
            scores, answers = share.gathered(self._fares(learner, share.own(episode)))
            metrics = self._report(tasks, episode, scores, answers)
            if self.sampler.learns:
                return Draw(share.own(self._augmented(episode, generator)), amount, metrics)

    def _augmented(self, episode: FewShotEpisode, generator: torch.Generator) -> FewShotEpisode:
        """The episode with other labels, where the configuration asks for it."""
        if getattr(self._config, "permute_labels", False):
            episode = with_permuted_labels(episode, generator)
        if std := getattr(self._config, "label_offset", 0.0):
            episode = with_label_offset(episode, std, generator)
        return episode

    def _fresh_tasks(self, count: int, generator: torch.Generator) -> Record:
        family = self.family.training
        assert isinstance(family, HasChoosableTasks)
        return family.sample(count, "train", generator)

    def _fares(self, learner: FewShotLearner, episode: FewShotEpisode) -> tuple[Tensor, Tensor]:
        """How the learner fares in each task after adaptation as in training: scores [N], and answers [N, Q]."""
        trained = self._trained_points(learner)
        predictions = learner.predictions(episode, max(1, self.num_points if trained is None else trained - 1))[-1]
        return self.problem.score(predictions, episode.query), predictions.argmax(-1)

    def _report(self, tasks: Record, episode: FewShotEpisode, scores: Tensor, answers: Tensor) -> dict[str, float]:
        """Tell the sampler how the learner fared in tasks."""
        if isinstance(self.sampler, ClassAwareSampler):
            self.sampler.confused(tasks, episode.query.y, answers)
        metrics = self.sampler.report(tasks, scores if self.measure.higher_is_better else -scores)
        tail = Tail.of(scores, higher_is_better=self.measure.higher_is_better)
        return metrics | tail_metrics(f"meta_train/{self.measure.name}", tail)

    def _next_generator(self) -> torch.Generator:
        """A generator for the next batch, seeded by one number of the saved training stream."""
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
        """The scores on fresh queries after 0, 1, ... points of adaptation.

        num_points: None for the source's own number. Learners that absorb shots or examples get that many; others get
        the family's shots. family: the family to evaluate on, e.g. with more classes per task; None: the training
        family.

        Raises:
            ValueError: when a number is below one, the family does not declare the split or has too few shots, or the
                learner cannot predict for this family, e.g. because its inputs have another shape.
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
        scored: dict[int, Outcome] = {}  # by the number of their batch
        tasks: list[Record] = []
        digest, seconds = Digest(), 0.0
        for number, episode in enumerate(_test_tasks(family, split, num_tasks, shots, generator)):
            digest.add(replace(episode, tasks=None))  # the examples make the episode
            tasks += [] if episode.tasks is None else [episode.tasks]
            if number % process_count() != process_index():
                continue  # another process's
            started = time.perf_counter()
            predictions = learner.predictions(episode, num_points)
            if predictions.is_cuda:
                torch.cuda.synchronize(predictions.device)
            seconds += time.perf_counter() - started
            scored[number] = family.problem.outcome(predictions, episode.query)
        scored = {number: outcome for part in exchanged(scored) for number, outcome in part.items()}
        outcomes = [scored[number].to(generator.device) for number in sorted(scored)]
        ways = {"ways": family.problem.ways} if isinstance(family.problem, Classification) else {}
        sizes = {**ways, "shots": family.shots if shots is None else shots, "queries": family.test_queries}
        if family.varies:
            sizes = {"ways": f"up to {sizes['ways']}", "shots": "varied", "queries": f"up to {family.test_queries}"}
        facts: dict[str, Any] = {
            **sizes,
            **learner.facts,
            "milliseconds_per_task": 1000 * sum(exchanged(seconds)) / num_tasks,
        }
        evaluation = Evaluation.of(
            torch.cat([outcome.score for outcome in outcomes], 1),
            family=family.name,
            agent=agent_name,
            split=split,
            measure=self.measure,
            tasks=cat(tasks) if tasks else None,
            trained_points=self._trained_points(learner),
            tasks_hash=str(digest),
        )
        return replace(evaluation, metrics=family.problem.metrics(outcomes), facts=facts | {"episodes": str(digest)})

    def test_episodes(
        self,
        learner: FewShotLearner,
        split: Split,
        num_tasks: int,
        generator: torch.Generator,
        num_points: int | None = None,
    ) -> Iterator[FewShotEpisode]:
        """The tasks on which `evaluate` measures a curve of `num_points` points, in batches; None: the source's own.

        Raises:
            ValueError: as `evaluate`.
        """
        shots = _shots(learner, self.family, self.num_points if num_points is None else num_points)
        return _test_tasks(self.family, split, num_tasks, shots, generator)

    def _trained_points(self, learner: FewShotLearner) -> int | None:
        """The points of the curve that training had, that before adaptation among them; None: their number varies."""
        if learner.point == "step":
            steps = getattr(self._config, "num_inner_steps", None)
            return None if steps is None else steps + 1
        return None if self.family.varies else self.family.training.shots + 1

    def state_dict(self, *, to_train: bool = True) -> dict[str, Any]:
        return {"sampler": self.sampler.state_dict()} if to_train else {}

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        if to_train:
            self.sampler.load_state_dict(state.get("sampler", {}))  # older checkpoints have none


def _check_shared(learner: FewShotLearner) -> None:
    """Check that several processes can share the tasks of this learner's updates.

    Raises:
        ValueError: when its net keeps running averages of all tasks together.
    """
    nets = [value for value in vars(learner).values() if isinstance(value, nn.Module)]
    has_averages = any(isinstance(part, Norm) and part.keeps_statistics for net in nets for part in net.modules())
    if has_averages and not getattr(learner, "shares_averages", False):
        raise ValueError(
            "normalisation is 'running', which takes the images of all tasks together; must be another one for "
            f"{process_count()} processes"
        )


def _check_memory(family: FewShotFamily, num_tasks: int) -> None:
    """Check that a batch of tasks fits the memory.

    Raises:
        ValueError: when a batch of tasks cannot fit the memory.
    """
    if family.varies:
        return
    ways = family.problem.ways if isinstance(family.problem, Classification) else 1
    sizes = [(num_tasks, each.shots, each.queries) for each in (family, family.training)]
    sizes.append((1, family.shots, family.test_queries))
    numbers = math.prod(family.problem.input_shape) * ways
    for tasks, shots, queries in sizes:
        what = f"a batch of {tasks:,} tasks with {shots:,} shots and {queries:,} queries of {family.name}"
        check_memory(what, float(tasks) * (shots + queries) * numbers)


def _most_points(family: FewShotFamily) -> int:
    """The curve's points for a learner that absorbs the support: its shots, or one if their number varies."""
    return 1 if family.varies else family.shots


def _shots(learner: FewShotLearner, family: FewShotFamily, num_points: int) -> int | None:
    """The shots per test task for a curve of `num_points` points; None: the family's own.

    Raises:
        ValueError: when points are shots, and the number of shots varies.
    """
    if learner.point == "step":
        return None
    if not family.varies:
        return num_points
    if num_points > 1:
        raise ValueError(f"num_points is {num_points}; must be 1, because tasks have different numbers of shots")
    return None


def _test_tasks(
    family: FewShotFamily, split: Split, num_tasks: int, shots: int | None, generator: torch.Generator
) -> Iterator[FewShotEpisode]:
    """Test tasks in batches that fit the cache; task i does not depend on the number of tasks."""
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
