"""Few-shot episodes as the outer loop's experience: a support and a query set of each of many fresh tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from metarl.evaluation import Evaluation, Measure, Score
from metarl.fewshot.episode import FewShotEpisode, FewShotFamily, FewShotLearner, FewShotLearnerConfig, draw_episode
from metarl.protocols import Split

ERROR = Measure("mse", "step", 0, higher_is_better=False)
CURVE_STEPS = 10  # of adaptation, in the adaptation curve
TEST_QUERIES = 100  # for each test task, so that chance in the queries plays little part


class FewShotSource:
    """Draws `num_tasks` fresh training tasks, with the family's own numbers of shots and queries."""

    unit = "examples"
    unit_rate = "examples/s"
    score_tag = "train/query_error"
    num_diverged = 0

    def __init__(
        self,
        family: FewShotFamily,
        num_tasks: int,
        copies: int,
        num_steps: int | None,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        if copies != 1:
            raise ValueError(f"copies is {copies}; a task of {family.name} is met once, so that it must be 1")
        self.family, self.num_tasks = family, num_tasks
        self.num_episodes = CURVE_STEPS if num_steps is None else num_steps
        self.measure = ERROR  # until a learner says what its adaptation is counted in
        self._num_steps_given = num_steps is not None
        self._generators = generators

    def make_learner(self, config: FewShotLearnerConfig, num_iterations: int) -> FewShotLearner:
        """The learner of a configuration.

        Raises:
            ValueError: when the configuration is of an agent that acts.
        """
        if not hasattr(config, "make_learner"):
            raise ValueError(
                f"agent is {type(config).__name__}, which acts; {self.family.name} needs one that predicts"
            )
        learner = config.make_learner(
            self.family.input_size,
            self.family.output_size,
            num_iterations=num_iterations,
            generator=self._generators["initialisation"],
        )
        self.measure = replace(ERROR, point=learner.point)
        if learner.point == "example" and not self._num_steps_given:
            self.num_episodes = self.family.shots
        return learner

    def draw(self, learner: FewShotLearner) -> FewShotEpisode:
        shots, queries = self.family.shots, self.family.queries
        return draw_episode(self.family, self.num_tasks, "train", shots, queries, generator=self._generators["task"])

    def amount(self, experience: FewShotEpisode) -> int:
        return experience.num_examples

    def metrics(self, experience: FewShotEpisode) -> dict[str, float]:
        return {}

    def evaluate(
        self,
        learner: FewShotLearner,
        *,
        agent_name: str,
        split: Split,
        num_tasks: int,
        num_episodes: int | None,
        generator: torch.Generator,
    ) -> Evaluation:
        """The error on fresh queries after 0, 1, ... steps (`num_episodes`, or the source's own number) of adaptation.

        Learners that absorb examples are counted in those, and are given as many; others have the family's shots.

        Raises:
            ValueError: when a number is below one, or the family does not declare the split.
        """
        num_steps = self.num_episodes if num_episodes is None else num_episodes
        for name, value in (("num_tasks", num_tasks), ("num_episodes", num_steps)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        shots = num_steps if learner.point == "example" else self.family.shots
        episode = draw_episode(self.family, num_tasks, split, shots, TEST_QUERIES, generator=generator)
        scores = [Score.of(errors) for errors in learner.curve(episode, num_steps)]
        return Evaluation(
            family=self.family.name,
            agent=agent_name,
            split=split,
            num_tasks=num_tasks,
            episodes=scores,
            total=scores[-1],
            bounds={},
            measure=self.measure,
        )
