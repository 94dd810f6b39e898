"""Families around families: laws, hand numbers, and what passes through them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from agents.rl2 import RL2Config
from envs.catalog import make
from envs.check import check_family
from envs.external.gymnasium_family import GymnasiumFamily
from envs.samplers import Choice, LogUniform, Uniform, task_record
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation, Semicircle
from envs.torch_families.torch_env import TorchEnv
from envs.wrappers import ActionRepeat, Delayed, History, Noisy, TimeAware
from experiments.cli.main import main
from experiments.experiment.reading import read
from metarl.protocols import Measures, Renders, TaskFamily
from metarl.records import Step
from metarl.run.directory import Run
from metarl.trainer import TrainConfig, Trainer


@dataclass(frozen=True)
class Counting:
    """Observes the step's number and the action taken last, which is the reward; `ends_at` ends an episode early."""

    horizon: int = 6
    discrete: bool = False
    name: str = "counting"
    num_episodes: int = 2

    @property
    def observation_space(self) -> spaces.Box:
        return spaces.Box(-10, 100, (2,))

    @property
    def action_space(self) -> Any:
        return spaces.Discrete(5) if self.discrete else spaces.Box(-1, 9, (1,))

    def sample(self, num_tasks: int, split: Any, generator: torch.Generator) -> Any:
        if split not in ("train", "test"):
            raise ValueError(f"split is {split!r}")
        return task_record(("ends_at",))(ends_at=torch.randint(3, 9, (num_tasks,), generator=generator))

    def make_env(self, num_rows: int, generator: torch.Generator) -> Any:
        return TorchEnv(self, num_rows, generator)

    def bounds(self, tasks: Any, num_episodes: int) -> dict[str, list[float]]:
        return {"oracle": [1.0] * num_episodes}

    def initial_state(self, tasks: Any, generator: torch.Generator) -> Tensor:
        return torch.zeros(len(tasks), 2)

    def transition(self, tasks: Any, state: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        return torch.stack([state[:, 0] + 1, action.reshape(-1).float()], dim=1)

    def reward(
        self, tasks: Any, state: Tensor, action: Tensor, next_state: Tensor, generator: torch.Generator
    ) -> Tensor:
        return next_state[:, 1].clone()

    def terminated(self, tasks: Any, next_state: Tensor) -> Tensor:
        return next_state[:, 0] >= tasks.ends_at

    def observation(self, tasks: Any, state: Tensor) -> Tensor:
        return state.clone()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def started(family: Any, ends_at: tuple[int, ...], **values: Any) -> tuple[Any, Step]:
    """An environment with a row for each of the given ends, and what it shows first."""
    env = family.make_env(len(ends_at), generator())
    example = family.sample(len(ends_at), "train", generator())
    fields = {**vars(example), "ends_at": torch.tensor(ends_at)}
    fields |= {name: torch.tensor(value) for name, value in values.items()}
    return env, env.reset(type(example)(**fields))


def actions(number: float, num_rows: int = 1) -> Tensor:
    return torch.full((num_rows, 1), float(number))


ROBOT = make("hopper_rand_params", horizon=14)  # falls early


@pytest.mark.parametrize(
    "family",
    [
        TimeAware(GridNavi(horizon=5)),
        TimeAware(ROBOT),
        ActionRepeat(PointNavigation(horizon=7), repeat=3),
        ActionRepeat(Counting(), repeat=2),
        ActionRepeat(ROBOT, repeat=2),
        ActionRepeat(BernoulliBandit(num_pulls=2), repeat=4),
        Noisy(Semicircle(horizon=4), obs_noise=Uniform(0, 0.2), action_noise=0.1),
        Noisy(GridNavi(horizon=4), obs_noise=0.1, action_noise=Uniform(0, 0.5)),
        Noisy(Counting(), action_noise=LogUniform(0.1, 1)),
        Delayed(PointNavigation(horizon=6), obs_delay=2, action_delay=Choice([0, 1, 3])),
        Delayed(GridNavi(horizon=6), obs_delay=Uniform(0, 2), action_delay=1),
        Delayed(Counting(), obs_delay=Choice([1, 4], ood=[6]), action_delay=Choice([0, 2])),
        History(ROBOT, num_steps=2),
        History(Counting(), num_steps=3),
        TimeAware(ActionRepeat(Noisy(Delayed(ROBOT, action_delay=Choice([0, 2])), obs_noise=Uniform(0, 0.1)), 2)),
    ],
    ids=lambda family: family.name,
)
def test_they_obey_the_laws(family):
    assert isinstance(family, TaskFamily)
    check_family(family)


def test_a_history_holds_the_last_steps_of_the_episode_alone():
    family = History(Counting(horizon=4), num_steps=3)
    env, step = started(family, (2, 9))
    assert family.observation_space.shape == (6,)
    assert step.obs[:, 0::2].tolist() == [[0, 0, 0], [0, 0, 0]]  # the numbers of the steps
    step = env.step(actions(5, 2))
    assert step.obs[0].tolist() == [0, 0, 0, 0, 1, 5]
    step = env.step(actions(6, 2))
    assert step.next_obs[:, 0::2].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert step.obs[:, 0::2].tolist() == [[0, 0, 0], [0, 1, 2]]  # the first row has begun another episode
    step = env.step(actions(7, 2), torch.tensor([False, True]))
    assert step.obs[:, 1::2].tolist() == [[0, 0, 0], [5, 6, 7]]
    with pytest.raises(ValueError, match="num_steps is 0; must be at least 1"):
        History(Counting(), num_steps=0)


def test_the_share_of_time_grows_and_starts_afresh():
    family = TimeAware(Counting(horizon=4))
    env, step = started(family, (2, 9))
    assert family.observation_space.high.tolist() == [100, 100, 1]
    assert step.obs[:, 2].tolist() == [0, 0]
    seen = []
    for _ in range(4):
        step = env.step(actions(1, 2))
        seen.append((step.next_obs[:, 2].tolist(), step.obs[:, 2].tolist()))
    assert seen == [
        ([0.25, 0.25], [0.25, 0.25]),
        ([0.5, 0.5], [0, 0.5]),
        ([0.25, 0.75], [0.25, 0.75]),
        ([0.5, 1.0], [0, 0]),
    ]
    step = env.step(actions(1, 2), torch.tensor([False, True]))
    assert step.next_obs[:, 2].tolist() == step.obs[:, 2].tolist() == [0, 0.25]


def test_time_leaves_bounds_alone_and_the_rest_does_not():
    tasks = Counting().sample(2, "train", generator())
    assert TimeAware(Counting()).bounds(tasks, 2) == {"oracle": [1.0, 1.0]}
    assert Noisy(Counting()).bounds(tasks, 2) == ActionRepeat(Counting()).bounds(tasks, 2) == {}


def test_a_repeat_adds_rewards_up_and_stops_at_an_end():
    family = ActionRepeat(Counting(horizon=5), repeat=2)
    assert family.horizon == 3
    env, _ = started(family, (3, 9))
    step = env.step(actions(4, 2))
    assert (step.reward.tolist(), step.obs[:, 0].tolist()) == ([8, 8], [2, 2])
    step = env.step(actions(4, 2))  # the first row ends at its third step, in the middle of the pair
    assert step.reward.tolist() == [4, 8]
    assert (step.next_obs[:, 0].tolist(), step.obs[:, 0].tolist()) == ([3, 4], [0, 4])
    assert step.terminated.tolist() == [True, False]
    step = env.step(actions(1, 2), torch.tensor([False, True]))  # the time limit, after one of two
    assert step.reward.tolist() == [0, 1]
    assert step.truncated.tolist() == [False, True]
    assert (step.next_obs[:, 0].tolist(), step.obs[:, 0].tolist()) == ([0, 5], [0, 0])


def test_metrics_of_a_repeat_are_means_over_the_steps_it_took():
    family = make("half_cheetah_vel", horizon=3)
    env: Any = ActionRepeat(family, 2).make_env(2, generator())
    plain = family.make_env(2, generator())
    tasks = family.sample(2, "train", generator())
    for each in (env, plain):
        each.reset(tasks)
    assert isinstance(env, Measures) is True
    assert env.metric_names == ("velocity_error",)
    action = torch.ones(2, 6)
    steps: Any = [plain.step(action) for _ in range(3)]
    first, last = env.step(action), env.step(action)
    torch.testing.assert_close(first.metrics, (steps[0].metrics + steps[1].metrics) / 2)
    assert torch.equal(last.metrics, steps[2].metrics)
    torch.testing.assert_close(first.reward, steps[0].reward + steps[1].reward)
    assert torch.equal(last.next_obs, steps[2].next_obs)


def test_noise_has_the_strength_of_its_row():
    env, step = started(Noisy(Counting(), obs_noise=Uniform(0, 5)), (9,) * 4000, obs_noise=[0.0] * 2000 + [3.0] * 2000)
    assert torch.equal(step.obs, step.next_obs)
    assert not step.obs[:2000].any()
    step = env.step(actions(2, 4000))
    assert torch.equal(step.next_obs[:2000], torch.tensor([1.0, 2.0]).expand(2000, 2))
    noise = step.next_obs[2000:] - torch.tensor([1.0, 2.0])
    assert float(noise.std()) == pytest.approx(3.0, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.15)
    assert torch.equal(step.obs, step.next_obs)
    assert step.reward.tolist() == [2.0] * 4000  # rewards are of the world and not of what is seen


def test_actions_are_disturbed_after_they_are_clipped_and_clipped_again():
    env, _ = started(Noisy(Counting(), action_noise=2.0), (9,) * 4000)
    reward = env.step(actions(50, 4000)).reward  # taken as nine, the most there is
    assert float(reward.max()) == 9
    assert float((reward == 9).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((reward < 7).float().mean()) == pytest.approx(0.1587, abs=0.02)


def test_discrete_actions_are_exchanged_with_a_probability():
    env, _ = started(Noisy(Counting(discrete=True), action_noise=0.5), (9,) * 4000)
    reward = env.step(torch.full((4000,), 3)).reward
    assert float((reward == 3).float().mean()) == pytest.approx(0.5 + 0.5 / 5, abs=0.03)
    assert set(reward.tolist()) == {0, 1, 2, 3, 4}


def test_observations_come_late_and_none_of_the_last_episode():
    family = Delayed(Counting(horizon=4), obs_delay=Choice([0, 2]))
    env, step = started(family, (9, 9, 3), obs_delay=[0.0, 2.0, 2.0])
    seen = [(step.next_obs[:, 0].tolist(), step.obs[:, 0].tolist())]
    for _ in range(5):
        step = env.step(actions(1, 3))
        seen.append((step.next_obs[:, 0].tolist(), step.obs[:, 0].tolist()))
    assert seen == [
        ([0, 0, 0], [0, 0, 0]),
        ([1, 0, 0], [1, 0, 0]),
        ([2, 0, 0], [2, 0, 0]),
        ([3, 1, 1], [3, 1, 0]),
        ([4, 2, 0], [0, 0, 0]),
        ([1, 0, 0], [1, 0, 0]),
    ]


def test_actions_take_effect_late_and_none_of_the_last_episode():
    family = Delayed(Counting(horizon=4), action_delay=Choice([0, 1, 2]))
    env, _ = started(family, (9, 9, 2), action_delay=[0.0, 2.0, 1.0])
    rewards = [env.step(actions(number, 3)).reward.tolist() for number in (1, 2, 3, 4, 5)]
    assert rewards == [[1, 0, 0], [2, 0, 1], [3, 1, 0], [4, 2, 3], [5, 0, 0]]


def test_delays_in_milliseconds_are_whole_steps():
    robot: Any = ROBOT
    in_ms = 1000 * robot.make_env(1, generator()).seconds_per_step
    families = Delayed(ROBOT, obs_delay=2, action_delay=1), Delayed(ROBOT, 1, 0, 0.9 * in_ms, 1.2 * in_ms)
    envs = [family.make_env(2, generator()) for family in families]
    for env in envs:
        env.reset(robot.sample(2, "train", generator(1)))
    for number in range(6):
        action = torch.full((2, *robot.action_space.shape), 0.1 * number)
        one, other = (env.step(action) for env in envs)
        assert torch.equal(one.obs, other.obs)
    with pytest.raises(ValueError, match="obs_latency is in ms, but steps of counting have no duration; use a delay"):
        Delayed(Counting(), obs_latency=3).make_env(1, generator())


def test_frozen_rows_neither_see_nor_send():
    env, _ = started(Delayed(Counting(), obs_delay=1, action_delay=1), (9, 9))
    only_second = torch.tensor([False, True])
    env.step(actions(1, 2))
    step = env.step(actions(7, 2), only_second)
    assert (step.obs[:, 0].tolist(), step.reward.tolist()) == ([0, 1], [0, 1])
    step = env.step(actions(3, 2))
    assert (step.obs[:, 0].tolist(), step.reward.tolist()) == ([1, 2], [1, 7])


def test_the_action_before_the_first_is_the_nearest_to_zero():
    @dataclass(frozen=True)
    class Positive(Counting):
        @property
        def action_space(self) -> Any:
            return spaces.Box(2, 9, (1,))

    env, _ = started(Delayed(Positive(), action_delay=1), (9,))
    assert [float(env.step(actions(5)).reward) for _ in range(2)] == [2, 5]


def test_a_strength_that_is_drawn_is_a_parameter_of_the_task():
    family = Noisy(Delayed(GridNavi(), obs_delay=Choice([0, 1])), obs_noise=Uniform(0.1, 0.2), action_noise=0.3)
    tasks: Any = family.sample(500, "train", generator())
    assert set(vars(tasks)) == {"goal", "obs_delay", "obs_noise"}
    assert isinstance(family.sample(2, "test", generator()), type(tasks)) is True
    assert set(tasks.obs_delay.tolist()) == {0.0, 1.0}
    assert 0.1 <= float(tasks.obs_noise.min()) < float(tasks.obs_noise.max()) <= 0.2
    ood: Any = family.sample(500, "ood", generator())
    assert float(ood.obs_noise.min()) > 0.2
    inside = family.in_training_range
    assert inside is not None
    assert bool(inside(tasks).all())
    assert not bool(inside(ood).any())
    outside_goal = type(tasks)(**{**vars(tasks), "goal": ood.goal})
    assert not bool(inside(outside_goal).any())


def test_where_nothing_lies_outside_there_is_no_such_split():
    for family in (Noisy(Counting()), Delayed(Counting(), obs_delay=Choice([1, 2]))):
        with pytest.raises(ValueError, match="is 'ood'; must be one of train, test"):
            family.sample(1, "ood", generator())
    tasks: Any = Noisy(Counting(), obs_noise=Uniform(0, 1)).sample(9, "ood", generator())
    assert bool((tasks.obs_noise > 1).all())


@pytest.mark.parametrize(
    ("make_family", "message"),
    [
        (lambda: Noisy(Counting(), obs_noise=-1), "obs_noise is -1; must be zero or positive, and finite"),
        (lambda: Noisy(Counting(), obs_noise=Uniform(-1, 1)), "obs_noise is Uniform(low=-1, high=1); must be"),
        (lambda: Noisy(Counting(), obs_noise="much"), "obs_noise is 'much'; must be a number or a range"),
        (lambda: Noisy(Counting(discrete=True), action_noise=2), "action_noise is 2; must be a probabilit"),
        (
            lambda: Noisy(Noisy(Counting(), obs_noise=Uniform(0, 1)), obs_noise=Uniform(0, 1)),
            "obs_noise is a range, but tasks of counting_noisy already have obs_noise",
        ),
        (lambda: ActionRepeat(Counting(), repeat=0), "repeat is 0; must be at least 1"),
    ],
)
def test_mistakes_are_named(make_family, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is compared
        make_family()
    assert message in str(error.value)


def test_images_metrics_and_all_else_pass_through():
    family = TimeAware(ActionRepeat(Delayed(make("half_cheetah_vel", horizon=4), obs_delay=1), repeat=2))
    assert family.name == "half_cheetah_vel_delayed_repeat_time_aware"
    env: Any = family.make_env(1, generator())
    assert isinstance(env, Renders) is True
    assert env.seconds_per_step == pytest.approx(2 * 0.05)
    assert env.num_diverged == 0
    plain = TimeAware(Counting()).make_env(1, generator())
    assert not isinstance(plain, Renders)
    assert not isinstance(plain, Measures)
    with pytest.raises(AttributeError, match="num_diverged"):
        plain.num_diverged  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_the_documented_example_is_a_family():
    page = (Path(__file__).resolve().parents[2] / "docs" / "families.md").read_text()
    found = next(block for block in re.findall(r"```python\n(.+?)```", page, re.DOTALL) if "envs.wrappers" in block)
    names: dict[str, Any] = {}
    exec(found, names)
    assert names["family"].name == "half_cheetah_vel_delayed_noisy_time_aware"
    assert set(vars(names["family"].sample(2, "train", generator()))) == {"velocity", "action_delay", "obs_noise"}


RECIPE = """
from agents.rl2 import RL2Config
from envs.external.gymnasium_family import GymnasiumFamily
from envs.samplers import Choice, Uniform
from envs.wrappers import Delayed, Noisy
from experiments.experiment.definition import Experiment
from metarl.trainer import TrainConfig

pendulum = GymnasiumFamily("Pendulum-v1", {"g": Uniform(5, 15)}, horizon=4, num_workers=0)
experiment = Experiment(
    family=Noisy(Delayed(pendulum, obs_delay=Choice([0, 1])), obs_noise=Uniform(0, 0.1), action_noise=0.1),
    agent=RL2Config(hidden_size=8),
    train=TrainConfig(num_iterations=1, num_tasks=4, eval_tasks=3),
)
"""


def test_a_run_of_nested_families_is_resumed_and_evaluated(tmp_path, monkeypatch, capsys):
    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        output, errors = capsys.readouterr()
        assert not stop.value.code, errors
        return output

    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    changes = ("--family.obs-noise.high", "0.5", "--family.action-noise", "0.2", "--family.family.family.horizon", "3")
    changes = (*changes, "--family.family.family.tasks.g.low", "6")
    run("train", "recipe.py", "--run-dir", "run", *changes)
    pendulum = GymnasiumFamily("Pendulum-v1", {"g": Uniform(6, 15)}, horizon=3, num_workers=0)
    expected = Noisy(Delayed(pendulum, obs_delay=Choice([0, 1])), obs_noise=Uniform(0, 0.5), action_noise=0.2)
    assert read(Run(Path("run"))).experiment.family == expected
    run("resume", "run", "--num-iterations", "2")
    assert '"family": "pendulum_delayed_noisy"' in run("evaluate", "run", "--tasks", "5", "--split", "ood", "--json")


def test_an_agent_trains_on_it():
    family = TimeAware(Noisy(Delayed(ROBOT, action_delay=Choice([0, 1])), obs_noise=Uniform(0, 0.1)))
    config = TrainConfig(num_iterations=1, num_tasks=8, eval_tasks=4)
    trainer = Trainer(family, RL2Config(hidden_size=8), config, agent_name="rl2", seed=0, device="cpu")
    assert np.isfinite(trainer.iterate()["meta_train/return/total"])
    assert trainer.evaluate(split="ood").num_tasks == 4
