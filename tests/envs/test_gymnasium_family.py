"""Third-party Gymnasium environments as task families: laws, tasks, spaces, mistakes by name, and crashes."""

import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from agents.rl2 import RL2Config
from envs.bridges.gymnasium_env import GymnasiumEnv
from envs.check import check_family
from envs.external import CrashedTooOften
from envs.external.gymnasium_family import GymnasiumFamily
from envs.samplers import Choice, LogUniform, Uniform
from envs.wrappers import Noisy, TimeAware
from experiments.cli.main import main
from experiments.experiment.definition import load
from metarl.protocols import Renders
from metarl.records import cat
from metarl.trainer import TrainConfig, Trainer

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not import the tests


class Fragile(gymnasium.Env[Any, Any]):
    """Counts steps, of which number `crash_at` goes wrong in the way `how`; the reward is the action times `gain`."""

    observation_space: Any = spaces.Dict({"clock": spaces.Box(0, 100, (1,)), "kind": spaces.Discrete(3)})
    action_space: Any = spaces.Box(-1.0, 1.0, (1, 1), dtype=np.float64)

    def __init__(self, how: str = "") -> None:
        self.gain, self.crash_at, self.how, self.clock = 1.0, 0, how, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.clock = 0
        if self.how == "reset" and self.crash_at:
            raise OSError("no licence\nleft")
        return self.obs, {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.clock += 1
        if self.clock == self.crash_at:
            {"raise": self.burst, "exit": lambda: os._exit(3), "leave": sys.exit, "kill": kill_me}[self.how]()
        return self.obs, self.gain * float(action[0, 0]), False, False, {}

    @property
    def obs(self) -> Any:
        return {"clock": np.array([self.clock], dtype=np.float32), "kind": 2}

    def burst(self) -> None:
        raise ZeroDivisionError(f"burst at {self.clock}")


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fragile(how: str, crash_at: Any = None, **settings: Any) -> GymnasiumFamily:
    tasks = {"gain": Uniform(1, 2), "crash_at": crash_at or Choice([0])}
    return GymnasiumFamily(lambda: Fragile(how), tasks=tasks, **{"horizon": 4, "name": "fragile", **settings})


def pendulum(**settings: Any) -> GymnasiumFamily:
    return GymnasiumFamily("Pendulum-v1", **{"tasks": {"g": Uniform(5, 15)}, "horizon": 6, **settings})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lengthen(env: Any, task: Any) -> None:
    """A pole of another length, with what follows from it."""
    env.length, env.polemass_length = task["length"], env.masspole * task["length"]


def tasks_of(family: GymnasiumFamily, **values: list[float]) -> Any:
    size = len(next(iter(values.values())))
    example = family.sample(size, "train", generator())
    return type(example)(**{**vars(example), **{name: torch.tensor(value) for name, value in values.items()}})


def rollout(family: GymnasiumFamily, num_rows: int = 5, num_steps: int = 15, seed: int = 0) -> Any:
    """All steps of a rollout with random actions."""
    env, source = family.make_env(num_rows, generator(seed)), generator(1)
    steps = [env.reset(family.sample(num_rows, "train", generator()))]
    for _ in range(num_steps):
        steps.append(env.step(torch.rand(num_rows, 1, generator=source)))
    return cat(steps)


@pytest.mark.parametrize(
    "family",
    [
        pendulum(num_workers=2),
        pendulum(num_workers=0),
        GymnasiumFamily("CartPole-v1", {"length": LogUniform(0.3, 1)}, lengthen, horizon=25, num_workers=1),
        fragile("", num_workers=0),
    ],
    ids=lambda family: f"{family.name}_{family.num_workers}",
)
def test_it_obeys_the_laws(family):
    check_family(family)


@pytest.mark.parametrize(
    "family",
    [fragile("", num_workers=1), TimeAware(Noisy(fragile("", num_workers=0), action_noise=0.1))],
    ids=lambda family: family.name,
)
def test_gymnasium_and_sb3_find_nothing_wrong_with_it(family):
    check_env(GymnasiumEnv(family), skip_render_check=True)
    sb3_check_env(GymnasiumEnv(family), warn=False)


def test_it_is_what_gymnasium_does():
    """Step for step against the environment itself, with its seed, gravity and time limit."""
    family = pendulum(num_workers=0, horizon=5)
    env: Any = family.make_env(2, generator())
    step = env.reset(tasks_of(family, g=[6.0, 14.0]))
    for row, gravity in enumerate((6.0, 14.0)):
        reference = gymnasium.make("Pendulum-v1", g=gravity)
        seed = int(np.random.SeedSequence([int(env._seeds[row]), 1]).generate_state(1)[0])
        assert step.obs[row].numpy() == pytest.approx(reference.reset(seed=seed)[0])
    action = torch.tensor([[0.5], [-3.0]])
    for index in range(5):
        before, step = step, env.step(action)
        for row, gravity in enumerate((6.0, 14.0)):
            cosine, sine, velocity = before.obs[row].double().tolist()
            torque = (0.5, -2.0)[row]
            cost = np.arctan2(sine, cosine) ** 2 + 0.1 * velocity**2 + 0.001 * torque**2
            assert float(step.reward[row]) == pytest.approx(-cost, abs=1e-4)
            velocity = np.clip(velocity + (1.5 * gravity * sine + 3 * torque) * 0.05, -8, 8)
            assert float(step.next_obs[row, 2]) == pytest.approx(velocity, abs=1e-4)
        assert step.truncated.tolist() == [index == 4] * 2


def test_neither_the_number_of_workers_nor_anything_else_but_the_seed_decides():
    reference = rollout(pendulum(num_workers=0))
    for num_workers in (1, 3):
        again = rollout(pendulum(num_workers=num_workers))
        assert all(
            torch.equal(a, b)
            for a, b in zip(vars(reference).values(), vars(again).values(), strict=True)
            if a is not None
        )
    assert not torch.equal(reference.obs, rollout(pendulum(num_workers=0), seed=1).obs)


def test_spaces_are_flattened_and_actions_brought_back():
    family = fragile("", num_workers=0)
    assert family.observation_space.shape == (4,)
    assert family.observation_space.high.tolist() == [100, 1, 1, 1]
    assert family.action_space.shape == (1,)
    env = family.make_env(1, generator())
    assert env.reset(tasks_of(family, gain=[1.5], crash_at=[0.0])).obs.tolist() == [[0, 0, 0, 1]]
    step = env.step(torch.tensor([[7.0]]))  # clipped to one
    assert step.reward.tolist() == [1.5]
    assert step.obs.tolist() == [[1, 0, 0, 1]]


def test_discrete_actions_count_from_zero():
    class Shifted(Fragile):
        action_space = spaces.Discrete(2, start=5)

        def step(self, action: Any) -> Any:
            return self.obs, float(action), False, False, {}

    family = GymnasiumFamily(Shifted, {"gain": Choice([1])}, horizon=3, num_workers=0)
    assert family.action_space == spaces.Discrete(2)
    env = family.make_env(2, generator())
    env.reset(family.sample(1, "train", generator()))
    assert env.step(torch.tensor([0, 1])).reward.tolist() == [5, 6]


def test_a_task_is_an_attribute_a_path_or_what_a_function_makes_of_it():
    class Nested(Fragile):
        def __init__(self) -> None:
            super().__init__()
            self.motor = SimpleNamespace(gain=3, name="m")

        def step(self, action: Any) -> Any:
            return self.obs, float(self.motor.gain), False, False, {}

    def reward_of(**settings: Any) -> float:
        family = GymnasiumFamily(Nested, horizon=3, num_workers=0, **settings)
        env = family.make_env(1, generator())
        env.reset(family.sample(1, "train", generator()))
        return float(env.step(torch.zeros(1, 1)).reward)

    def double(env: Any, task: Any) -> None:
        env.motor.gain = 2 * task["strength"]

    assert reward_of(tasks={"motor.gain": Choice([7])}) == 7
    assert reward_of(tasks={"strength": Choice([8])}, apply={"strength": "motor.gain"}) == 8
    assert reward_of(tasks={"strength": Choice([9])}, apply=double) == 18
    with pytest.raises(ValueError, match=r"sets 'motor.name', which is a str and no number: that needs a function"):
        reward_of(tasks={"motor.name": Choice([1])})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pendulum(tasks={"gg": Uniform(0, 1)}),
            "Pendulum-v1: apply fails: task 'gg' sets 'gg', but PendulumEnv has no attribute 'gg': did you mean 'g'?",
        ),
        (lambda: pendulum(tasks={}), "tasks is empty"),
        (lambda: pendulum(tasks={"g": Uniform(0, 1, bodies=["torso"])}), "task 'g' selects parts of a robot"),
        (lambda: pendulum(apply={"h": "g"}), "apply has 'h'; must be one of g"),
        (lambda: pendulum(apply=lambda env, task: task["h"]), "Pendulum-v1: apply fails: KeyError: 'h'"),
        (lambda: pendulum(num_workers=-1), "num_workers is -1; must be at least 0"),
        (lambda: GymnasiumFamily("Pendulm-v1", {"g": Uniform(0, 1)}), "Pendulm-v1: env fails: NameNotFound: "),
        (lambda: fragile("", horizon=0), "horizon is 0, but the environment has no time limit of its own"),
        (lambda: fragile("reset", crash_at=Choice([1])), "reset fails: OSError: no licence left"),
        (
            lambda: pendulum(apply=_Unpicklable()),
            "Pendulum-v1: it cannot be sent to a worker process: TypeError: cannot pickle",
        ),
        (
            lambda: GymnasiumFamily(lambda: gymnasium.make("Pendulum-v1"), {"g": Uniform(0, 1)}, horizon=300),
            "env fails: horizon is 300; must be at most 200, the environment's own limit",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is compared
        make()
    assert message in str(error.value)


class _Unpicklable:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, env: Any, task: Any) -> None:
        return None


def test_the_documented_example_is_the_recipes_family():
    page = (Path(__file__).resolve().parents[2] / "docs" / "families.md").read_text()
    found = re.search(r"```python\n(from envs.external.gymnasium_family .+?)```", page, re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(found[1], names)
    assert names["family"] == load("pendulum/rl2").family


# Parameters without an effect


class Shaky(Fragile):
    """Goes to the sum of its actions, each times what `weight` gives."""

    observation_space = spaces.Box(-100, 100, (1,))
    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self) -> None:
        super().__init__()
        self.mass, self.unread, self.motor = 1.0, 1.0, SimpleNamespace(gain=3.0, idle=1.0)
        self.total_mass = self.mass + 2
        self.place = np.zeros(1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=1)
        return self.place.copy(), {}

    def step(self, action: Any) -> Any:
        self.place = self.place + action * self.weight()
        return self.place.copy(), 0.0, False, False, {}

    def weight(self) -> float:
        return 1.0


class Heavy(Shaky):
    def weight(self) -> float:
        return 1 / self.mass + 1 / self.total_mass


class HeavyAnew(Heavy):
    def reset(self, **arguments: Any) -> Any:
        self.total_mass = self.mass + 2
        return super().reset(**arguments)


class PutBackAtReset(Shaky):
    def reset(self, **arguments: Any) -> Any:
        self.mass = 1.0
        return super().reset(**arguments)

    def weight(self) -> float:
        return self.mass


class PutBackAtStep(PutBackAtReset):
    def step(self, action: Any) -> Any:
        self.mass = 1.0
        return super().step(action)


class Driven(Shaky):
    def weight(self) -> float:
        return self.motor.gain


class Sparse(Shaky):
    """Has a goal that is never reached."""

    def weight(self) -> float:
        return float(abs(self.place[0] - 1000 * self.mass) < 1)


class Unsteady(Shaky):
    stream = np.random.default_rng()

    def weight(self) -> float:
        return self.stream.normal()


class GlobalStream(Shaky):
    def weight(self) -> float:
        return np.random.normal()


def shaky(env: Any, *names: str, **settings: Any) -> GymnasiumFamily:
    return GymnasiumFamily(env, {name: Uniform(1, 2) for name in names}, **{"horizon": 9, "num_workers": 0, **settings})


def refusal(make: Any) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is compared
        make()
    assert "\n" not in str(error.value)
    return str(error.value)


def set_all(env: Any, task: Any) -> None:
    env.mass, env.total_mass = task["m"], task["m"] + 2


def set_half(env: Any, task: Any) -> None:
    env.mass = task["m"]


def set_misspelt(env: Any, task: Any) -> None:
    env.masss = task["m"]


@pytest.mark.parametrize(
    ("env", "name"),
    [(Shaky, "unread"), (GlobalStream, "unread"), (Driven, "motor.idle"), ("Pendulum-v1", "screen_dim")],
)
def test_a_parameter_that_nothing_reads_is_refused(env, name):
    found = refusal(lambda: shaky(env, name))
    assert re.search(
        rf"task '{name}' has no effect: 9 random steps with 1.5 and with 1.0\d are the same; leave it", found
    )
    shaky(env, name, unchecked=(name,))


@pytest.mark.parametrize("env", [PutBackAtReset, PutBackAtStep])
def test_a_parameter_that_is_put_back_is_refused(env):
    assert "task 'mass' has no effect: reset or step puts 'mass' back" in refusal(lambda: shaky(env, "mass"))


@pytest.mark.parametrize(
    ("env", "name", "stale"),
    [
        ("CartPole-v1", "masspole", "polemass_length, total_mass"),
        ("CartPole-v1", "masscart", "total_mass"),
        ("CartPole-v1", "length", "polemass_length"),
        (Heavy, "mass", "total_mass"),
    ],
)
def test_a_parameter_from_which_others_were_computed_is_refused(env, name, stale):
    found = refusal(lambda: shaky(env, name))
    assert f"task {name!r} lacks a part of its effect: " in found
    assert f"computed from it when the environment is made, {stale}, keep" in found


def test_a_function_is_checked_as_attributes_are():
    shaky(Heavy, "m", apply=set_all)
    assert "task 'm' lacks a part of its effect" in refusal(lambda: shaky(Heavy, "m", apply=set_half))
    assert "task 'm' has no effect" in refusal(lambda: shaky(Heavy, "m", apply=set_misspelt))


@pytest.mark.parametrize(
    ("env", "name"),
    [(HeavyAnew, "mass"), (Heavy, "total_mass"), (Driven, "motor.gain"), (Sparse, "mass"), (Unsteady, "unread")],
)
def test_other_parameters_are_taken(env, name):
    """Those computed anew, too rare to be seen but read, or of an environment that does not repeat itself."""
    shaky(env, name)


def test_where_all_steps_are_the_same_nothing_is_told_of_a_parameter(caplog):
    class Still(Shaky):
        def weight(self) -> float:
            return 0.0

    with caplog.at_level(logging.WARNING):
        shaky(Still, "unread")
        shaky(Still, "unread", horizon=8)
    [message] = caplog.messages
    assert message == "Still: whether task 'unread' has an effect cannot be told, as all random steps are the same"


def test_trying_parameters_leaves_no_trace():
    np.random.seed(3)
    kinds = (Heavy.__setattr__, type(Heavy()))
    before = np.random.random()
    np.random.seed(3)
    shaky(HeavyAnew, "mass")
    assert np.random.random() == before
    assert kinds == (Heavy.__setattr__, type(Heavy()))
    assert "__setattr__" not in vars(HeavyAnew)


# Crashes


@pytest.mark.parametrize(
    ("how", "num_workers", "reason"),
    [
        ("raise", 0, "ZeroDivisionError: burst at 2"),
        ("raise", 1, "ZeroDivisionError: burst at 2"),
        ("leave", 0, "SystemExit (test_gymnasium_family.py:"),
        ("exit", 3, "its worker process ended with exit code 3"),
        ("kill", 3, "its worker process was killed by SIGKILL"),
    ],
)
def test_a_crash_ends_the_rows_episode_and_no_other(how, num_workers, reason, caplog):
    family = fragile(how, num_workers=num_workers)
    env = family.make_env(3, generator())
    first = env.reset(tasks_of(family, gain=[1.0, 1.5, 2.0], crash_at=[0.0, 2.0, 0.0]))
    action, rewards, ends = torch.ones(3, 1), [], []
    with caplog.at_level(logging.WARNING):
        for index in range(4):
            step = env.step(action)
            rewards.append(step.reward.tolist())
            ends.append(step.truncated.tolist())
            if index == 1:
                assert step.next_obs[:, 0].tolist() == [2, 1, 2]  # of the step before, as nothing is known of this one
                assert step.obs[1].tolist() == first.obs[1].tolist()
    assert rewards == [[1, 1.5, 2], [1, 0, 2], [1, 1.5, 2], [1, 0, 2]]
    assert ends == [[False, False, False], [False, True, False], [False, False, False], [True, True, True]]
    assert env.num_diverged == 2
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith(f"fragile: row 1 crashed: {reason}")
    assert "Task: gain=1.5, crash_at=2" in caplog.messages[0]


def test_a_killed_process_costs_all_its_rows_their_episodes_and_frozen_ones_later():
    family = fragile("kill", num_workers=1)
    env = family.make_env(3, generator())
    env.reset(tasks_of(family, gain=[1.0, 1.0, 1.0], crash_at=[0.0, 2.0, 0.0]))
    env.step(torch.ones(3, 1))
    step = env.step(torch.ones(3, 1), torch.tensor([True, True, False]))
    assert step.truncated.tolist() == [True, True, False]
    assert step.obs[:, 0].tolist() == [0, 0, 1]
    step = env.step(torch.ones(3, 1), torch.tensor([False, False, True]))
    assert step.truncated.tolist() == [False, False, True]
    assert (step.obs[:, 0].tolist(), step.next_obs[:, 0].tolist()) == ([0, 0, 0], [0, 0, 1])
    step = env.step(torch.ones(3, 1))
    assert (step.reward.tolist(), step.obs[:, 0].tolist()) == ([1, 1, 1], [1, 1, 1])
    assert env.num_diverged == 3


def test_a_process_that_is_killed_from_outside_is_replaced():
    family = pendulum(num_workers=2, horizon=50)
    env: Any = family.make_env(4, generator())
    env.reset(family.sample(4, "train", generator()))
    os.kill(env._holders[0].processes[0].pid, signal.SIGKILL)
    time.sleep(0.1)
    step = env.step(torch.zeros(4, 1))
    assert step.truncated.tolist() == [True, True, False, False]
    assert not env.step(torch.zeros(4, 1)).truncated.any()


@pytest.mark.parametrize("how", ["raise", "exit", "reset"])
def test_a_row_that_does_nothing_but_crash_stops_the_training(how):
    family = fragile(how, num_workers=2, max_crashes=3)
    env = family.make_env(2, generator())
    tasks = tasks_of(family, gain=[1.0, 1.0], crash_at=[0.0, 1.0])
    reasons = {"raise": "ZeroDivisionError: burst at 1", "exit": "its worker process ended", "reset": "OSError: no"}

    def run() -> None:
        env.reset(tasks)
        for _ in range(3):
            env.step(torch.ones(2, 1))

    with pytest.raises(CrashedTooOften, match=rf"fragile: row 1 crashed 3 times .+ {reasons[how]}.+ crash_at=1$"):
        run()
    env.reset(tasks_of(family, gain=[1.0, 1.0], crash_at=[0.0, 0.0]))  # it can be used again
    assert env.step(torch.ones(2, 1)).reward.tolist() == [1, 1]


def test_episodes_that_end_well_forgive_crashes():
    family = fragile("raise", num_workers=0, max_crashes=2)
    env = family.make_env(1, generator())
    for crash_at in (2.0, 0.0, 2.0):
        env.reset(tasks_of(family, gain=[1.0], crash_at=[crash_at]))
        for _ in range(3 if crash_at else 4):
            env.step(torch.ones(1, 1))
    assert env.num_diverged == 2


def test_training_goes_on_through_crashes():
    family = fragile("raise", crash_at=Choice([0, 0, 0, 3]), num_workers=1)
    config = TrainConfig(num_iterations=3, num_tasks=12, eval_every=3, eval_tasks=4)
    trainer = Trainer(family, RL2Config(hidden_size=8), config, agent_name="rl2", seed=0, device="cpu")
    logged = [trainer.iterate()["rollout/num_diverged"] for _ in range(3)]
    assert sum(logged) == trainer.num_diverged > 0


RECIPE = """
import gymnasium
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from agents.rl2 import RL2Config
from envs.external.gymnasium_family import GymnasiumFamily
from envs.samplers import Uniform
from experiments.experiment.definition import Experiment
from metarl.trainer import TrainConfig

class Broken(PendulumEnv):
    steps = 0

    def step(self, u):
        self.steps += 1
        if self.steps > 2:  # after the two that are tried
            raise OSError("out of order")
        return super().step(u)

def make():
    return Broken()

experiment = Experiment(
    family=GymnasiumFamily(make, {"g": Uniform(5, 15)}, horizon=4, num_workers=1, num_episodes=9),
    agent=RL2Config(hidden_size=8),
    train=TrainConfig(num_iterations=2, num_tasks=3, eval_tasks=2),
)
"""


class Stuck(PendulumEnv):
    """A pendulum that gives no answer to its n-th step in this process."""

    num_steps, stuck_at = 0, 1

    def step(self, u: Any) -> Any:
        Stuck.num_steps += 1
        if Stuck.num_steps >= Stuck.stuck_at:
            time.sleep(1000)
        return super().step(u)


@pytest.mark.parametrize(
    ("stuck_at", "message"), [(1, "step fails: TimeoutError: no answer"), (7, "reset or step gives no answer")]
)
def test_an_environment_that_hangs_while_it_is_tried_is_refused(monkeypatch, stuck_at, message):
    monkeypatch.setattr(Stuck, "num_steps", 0)
    monkeypatch.setattr(Stuck, "stuck_at", stuck_at)
    with pytest.raises(ValueError, match=f"{message} within 0.2 s"):
        GymnasiumFamily(Stuck, {"g": Uniform(5, 15)}, horizon=20, num_workers=0, step_timeout=0.2)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_training_that_stops_says_why_in_one_line(tmp_path, monkeypatch, capsys):
    """With functions of a recipe's own, whose module the worker cannot import."""
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    with pytest.raises(SystemExit) as stop:
        main(["train", "recipe.py", "--run-dir", "run"])
    assert stop.value.code == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("metarl:")]
    assert (
        "make: row 0 crashed 5 times in succession, the last time with: OSError: out of order (recipe.py:17). Task: g="
        in line
    )
    assert line.endswith("what was saved before is in run")


# Images


class Painted(PendulumEnv):
    """A pendulum whose image is one number: the steps since its start."""

    def reset(self, **arguments: Any) -> Any:
        self.count = 0
        return super().reset(**arguments)

    def step(self, u: Any) -> Any:
        self.count += 1
        return super().step(u)

    def render(self) -> Any:
        return np.full((2, 2, 3), self.count, dtype=np.uint8)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_it_is_seen_before_any_reset(num_workers):
    family = GymnasiumFamily(
        lambda: Painted(render_mode="rgb_array"), {"g": Uniform(5, 15)}, horizon=3, num_workers=num_workers
    )
    env: Any = family.make_env(2, generator())
    assert isinstance(env, Renders) is True
    assert env.seconds_per_step == pytest.approx(1 / 30)
    env.reset(family.sample(2, "train", generator()))
    seen = [int(env.render(1)[0, 0, 0])]
    for _ in range(4):
        env.step(torch.zeros(2, 1))
        seen.append(int(env.render(1)[0, 0, 0]))
    assert seen == [0, 1, 2, 3, 1]


def test_what_has_no_images_does_not_render():
    assert not isinstance(fragile("", num_workers=0).make_env(1, generator()), Renders)
