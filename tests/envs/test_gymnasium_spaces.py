"""What third-party environments observe, take and report: spaces, images, rewards, `info`, random streams."""

import random
import sys
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.maml import MAMLTRPOConfig
from agents.pearl import PEARLConfig
from agents.rl2 import RL2Config
from envs.bridges.gymnasium_env import GymnasiumEnv, GymnasiumVectorEnv
from envs.bridges.sb3_vec_env import as_vec_env
from envs.check import check_family
from envs.external.gymnasium_family import GymnasiumFamily
from envs.external.spaces import decode, encode, flat_spaces
from envs.samplers import Choice, Uniform
from envs.wrappers import ActionRepeat
from metarl.evaluation import Evaluation, evaluate
from metarl.protocols import Measures
from metarl.trainer import TrainConfig, Trainer

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not import the tests

BOX = spaces.Box(-1, 1, (2,), np.float32)


class Toy(gymnasium.Env[Any, Any]):
    """An environment whose spaces and answers are given."""

    def __init__(
        self,
        observations: Any = BOX,
        actions: Any = BOX,
        obs: Any = (0.0, 0.0),
        reward: Any = 0.0,
        ended: Any = False,
        info: Any = None,
    ) -> None:
        self.observation_space, self.action_space = observations, actions
        self.obs, self.reward, self.ended, self.info = obs, reward, ended, info or {}
        self.gain, self.clock = 1.0, 0
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.clock = 0
        return self.obs, {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.clock += 1
        return self.obs, self.reward, False, self.ended, self.info(self.clock) if callable(self.info) else self.info


def family_of(make: Any = None, **settings: Any) -> GymnasiumFamily:
    """A family of toys; `settings` of the toy, but for those of the family."""
    ours = {name: settings.pop(name) for name in ("name", "metrics", "flatten_images", "horizon") if name in settings}
    return GymnasiumFamily(
        make or (lambda: Toy(**settings)),
        {"gain": Uniform(1, 2)},
        **{"name": "toy", "horizon": 4, "num_workers": 0, "num_episodes": 1, **ours},
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def started(family: GymnasiumFamily, num_rows: int = 1) -> Any:
    env = family.make_env(num_rows, generator())
    env.reset(family.sample(num_rows, "train", generator()))
    return env


# Actions

ACTIONS = [
    (spaces.MultiDiscrete([3, 2]), 5),
    (spaces.MultiDiscrete(np.array([[2, 2], [3, 4]]), start=np.array([[1, 0], [5, -1]])), 11),
    (spaces.MultiBinary(3), 3),
    (spaces.MultiBinary((2, 2)), 4),
    (spaces.Box(0, 5, (2,), np.int64), 2),
    (spaces.Box(0, 255, (3,), np.uint8), 3),
    (spaces.Box(np.array([-1, 0]), np.array([1, 0]), dtype=np.float64), 2),
    (spaces.Box(-1, 1, (), np.float32), 1),
    (spaces.Tuple((spaces.Discrete(2, start=3), BOX)), 4),
    (
        spaces.Dict(a=spaces.Dict(b=spaces.Discrete(3)), c=spaces.Box(0, 4, (2, 1), np.int32), d=spaces.MultiBinary(2)),
        7,
    ),
]


@pytest.mark.parametrize(("space", "size"), ACTIONS, ids=lambda value: str(value)[:40])
def test_every_action_of_the_flat_box_is_one_of_the_environment(space, size):
    _, flat = flat_spaces(Toy(actions=space))
    assert isinstance(flat, spaces.Box)
    assert (flat.shape, flat.dtype) == ((size,), np.float32)
    source = np.random.default_rng(0)
    seen = {str(decode(space, source.uniform(flat.low - 1, flat.high + 1).astype(np.float32))) for _ in range(200)}
    for numbers in (flat.low, flat.high, *source.uniform(flat.low - 1, flat.high + 1, (200, size))):
        assert space.contains(decode(space, np.asarray(numbers, dtype=np.float32)))
    assert len(seen) > 5


def test_a_choice_is_the_largest_number_and_a_whole_number_the_nearest():
    numbers = np.array([0.1, 0.9, 0.2, 0.6, 0.3], dtype=np.float32)
    assert decode(spaces.MultiDiscrete([3, 2], start=[5, 0]), numbers).tolist() == [6, 0]
    assert decode(spaces.Box(0, 5, (3,), np.int64), np.array([-0.4, 3.7, 9.0])).tolist() == [0, 4, 5]
    assert decode(spaces.MultiBinary(2), np.array([0.2, 0.8])).tolist() == [0, 1]
    action = decode(
        spaces.Dict(a=spaces.Discrete(2, start=7), b=BOX), np.array([0.0, 1.0, 0.5, -3.0], dtype=np.float32)
    )
    assert action["a"] == 8
    assert action["b"].tolist() == [0.5, -1.0]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Sequence(BOX), "its action space has Sequence.+; must be Discrete, MultiDiscrete, MultiBinary, a Box"),
        (spaces.Dict(a=BOX, b=spaces.Text(3)), "its action space has Text.+; must be Discrete"),
        (spaces.Tuple(()), "its action space is Tuple.+, which has no numbers"),
    ],
)
def test_actions_that_cannot_be_flat_are_refused(space, message):
    with pytest.raises(ValueError, match=message):
        family_of(actions=space)


@pytest.mark.parametrize("space", [space for space, _ in ACTIONS[::3]], ids=lambda space: str(space)[:30])
def test_a_family_with_such_actions_obeys_the_laws(space):
    check_family(family_of(actions=space))


AGENTS = {
    "rl2": RL2Config(hidden_size=8),
    "maml": MAMLTRPOConfig(num_rollouts=2),
    "pearl": PEARLConfig(
        num_train_tasks=4, num_gradient_steps=3, meta_batch=2, batch=8, context=8, capacity=100, hidden_sizes=(8,)
    ),
}


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.array([-1, 0], np.float32), np.array([1, 0], np.float32)),
        spaces.Box(3, 3, (2,), np.float32),
        spaces.Tuple((spaces.Discrete(1), spaces.Box(2, 2, (1,), np.int64), BOX)),
    ],
    ids=["one_fixed", "all_fixed", "fixed_inside"],
)
def test_an_action_that_is_fixed_leaves_every_number_finite(agent, space):
    family = family_of(actions=space, reward=1.0)
    trainer = Trainer(
        family, AGENTS[agent], TrainConfig(num_iterations=2, num_tasks=2), agent_name=agent, seed=0, device="cpu"
    )
    for _ in range(2):
        logged = trainer.iterate()
        assert all(np.isfinite(value) for name, value in logged.items() if name.startswith("train/"))


# Observations

NESTED = spaces.Dict(kind=spaces.Discrete(3), place=spaces.Tuple((BOX, spaces.MultiBinary(2))))


def test_observations_are_as_gymnasium_flattens_them():
    NESTED.seed(0)
    for _ in range(20):
        obs = NESTED.sample()
        assert encode(NESTED, obs).tolist() == np.asarray(spaces.flatten(NESTED, obs), dtype=np.float32).tolist()


@pytest.mark.parametrize(
    ("space", "obs", "message"),
    [
        (NESTED, {"kind": 3, "place": ([0, 0], [0, 1])}, r"observation\['kind'\] is 3; must be in Discrete\(3\)"),
        (NESTED, {"kind": -1, "place": ([0, 0], [0, 1])}, r"observation\['kind'\] is -1; must be in Discrete\(3\)"),
        (NESTED, {"kind": 1}, r"observation lacks 'place'; must be a dict with kind, place"),
        (NESTED, np.zeros(7), r"observation is a ndarray; must be a dict with kind, place"),
        (NESTED, {"kind": 1, "place": ([0], [0, 1])}, r"observation\['place'\]\[0\] has shape \(1,\); must be \(2,\)"),
        (NESTED, {"kind": 1, "place": [0, 0]}, r"observation\['place'\]\[0\] has shape \(\); must be \(2,\)"),
        (BOX, [0.0], r"observation has shape \(1,\); must be \(2,\)"),
        (BOX, [[0.0, 1.0, 2.0]], r"observation has shape \(1, 3\); must be \(2,\)"),
        (spaces.Box(-1, 1, (1,)), None, r"observation is None; must be numbers of shape \(1,\)"),
        (spaces.Discrete(2), 2, r"observation is 2; must be in Discrete\(2\)"),
    ],
)
def test_an_observation_that_does_not_fit_its_space_is_named(space, obs, message):
    with pytest.raises(ValueError, match=f"^toy: reset fails: {message}$"):
        family_of(observations=space, obs=obs)


BYTES = spaces.Box(0, 255, (8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "space",
    [
        BYTES,
        spaces.Box(0, 255, (84, 84), np.uint8),
        spaces.Box(0, 1, (32, 32, 3), np.float32),
        spaces.Dict(a=BOX, b=BYTES),
    ],
    ids=["colours", "grey", "floats", "inside"],
)
def test_images_are_refused_with_the_way_out_unless_they_are_asked_for(space):
    with pytest.raises(ValueError, match=r"contain an image, Box.+ \d+ numbers when flattened: wrap .+ set flatten_im"):
        family_of(observations=space, obs=space.sample())
    family = family_of(observations=space, obs=space.sample(), flatten_images=True)
    assert family.observation_space.shape == (spaces.flatdim(space),)


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (3, 4)), spaces.Box(0, 10, (7, 7, 3), np.uint8)])
def test_small_arrays_are_no_images(space):
    assert family_of(observations=space, obs=space.sample()).observation_space.shape == (space.low.size,)


# Rewards, ends and their errors


@pytest.mark.parametrize(
    "reward", [1.5, np.float64(1.5), np.array(1.5), np.array([1.5]), np.array([[1.5]]), torch.tensor([1.5])]
)
def test_a_reward_is_one_number_of_any_shape(reward):
    env = started(family_of(reward=reward, ended=np.array([False])))
    assert [env.step(torch.zeros(1, 2)).reward.tolist() for _ in range(2)] == [[1.5], [1.5]]
    assert env.num_diverged == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": None}, "reward is None; must be one number"),
        ({"reward": np.array([1.0, 2.0])}, r"reward is array\(\[1., 2.\]\); must be one number"),
        ({"reward": "1.5"}, "reward is '1.5'; must be one number"),
        ({"reward": []}, r"reward is \[\]; must be one number"),
        ({"ended": None}, "truncated is None; must be one number"),
    ],
)
def test_a_step_is_tried_when_the_family_is_made(settings, message):
    with pytest.raises(ValueError, match=f"^toy: step fails: {message}$"):
        family_of(**settings)


def test_answers_of_the_old_interface_are_named():
    class Old(Toy):
        def reset(self, **arguments: Any) -> Any:
            return self.obs

    class OldStep(Toy):
        def step(self, action: Any) -> Any:
            return self.obs, 0.0, False, {}

    with pytest.raises(ValueError, match="reset does not return two values, an observation and a dict"):
        family_of(Old)
    with pytest.raises(ValueError, match=r"step fails: .+ not enough values to unpack \(expected 5, got 4\)"):
        family_of(OldStep)


def test_an_error_without_a_text_names_its_file_and_line(caplog):
    class Picky(Toy):
        def step(self, action: Any) -> Any:
            if self.clock:
                raise AssertionError
            return super().step(action)

    started(family_of(Picky)).step(torch.zeros(1, 2))
    env = started(family_of(Picky))
    for _ in range(2):
        env.step(torch.zeros(1, 2))
    assert "crashed: AssertionError (test_gymnasium_spaces.py:" in caplog.messages[0]


# Metrics


def test_numbers_of_info_are_metrics_of_logs_and_evaluations():
    info = {
        "is_success": True,
        "reward_run": np.float32(0.5),
        "force": np.array([2.0]),
        "mode": "walk",
        "pose": np.zeros(3),
    }
    family = family_of(info=info)
    env: Any = started(family, 2)
    assert isinstance(env, Measures) is True
    assert env.metric_names == ("force", "is_success", "reward_run")
    step = env.step(torch.zeros(2, 2), torch.tensor([True, False]))
    assert step.metrics.tolist() == [[2.0, 1.0, 0.5], [0.0, 0.0, 0.0]]
    trainer = Trainer(
        family, AGENTS["rl2"], TrainConfig(num_iterations=1, num_tasks=2), agent_name="rl2", seed=0, device="cpu"
    )
    assert trainer.iterate()["meta_train/is_success/ep_1"] == 1
    assert trainer.evaluate().metrics == {"force": [2.0], "is_success": [1.0], "reward_run": [0.5]}


def test_numbers_with_the_names_of_scores_and_names_that_are_no_text_do_no_harm():
    family = family_of(reward=1.0, info={"return": 7.0, "mean": 8.0, 3: 9.0, "a/b": 2.0, "nothing": None})
    result = evaluation_of(family)
    assert result.metrics == {"a/b": [2.0], "info_mean": [8.0], "info_return": [7.0]}
    assert result.total.mean == 4.0


def test_a_number_that_comes_late_is_pointed_out_and_reported_where_it_is_named(caplog):
    def info(clock: int) -> dict[str, float]:
        return {"speed": 1.0} | ({"is_success": 1.0} if clock == 4 else {})

    assert metrics_of(family_of(info=info)) == {"speed": [1.0]}
    assert caplog.messages == [
        "toy: info has is_success, which its first step did not have: metrics=('speed', 'is_success') reports it too"
    ]
    assert metrics_of(family_of(info=info, metrics=("is_success",))) == {"is_success": [1.0]}
    assert metrics_of(family_of(info=info, metrics=())) == {}
    assert len(caplog.messages) == 1
    repeated = ActionRepeat(family_of(info=info, metrics=("speed", "is_success")), repeat=3)
    assert metrics_of(repeated) == {"speed": [1.0], "is_success": [1.0]}


def metrics_of(family: Any) -> dict[str, list[float]]:
    return evaluation_of(family).metrics


def evaluation_of(family: Any) -> Evaluation:
    agent = AGENTS["rl2"].make(family.observation_space, family.action_space, num_iterations=1, generator=generator())
    arguments: Any = {"agent_name": "rl2", "split": "test", "num_tasks": 2, "num_points": 1}
    return evaluate(family, agent, **arguments, generator=generator())


# Random streams


class Gusts(Toy):
    """Draws from every stream that is not its own; `action_space` is the class's, as many environments have it."""

    observation_space: Any = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space: Any = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self) -> None:
        self.gain, self.clock = 1.0, 0
        self.offset = np.random.normal()

    def reset(self, **arguments: Any) -> Any:
        gymnasium.Env.reset(self, **arguments)
        return self.draw(), {}

    def step(self, action: Any) -> Any:
        return self.draw(), self.offset + random.random(), random.random() < 0.2, False, {}

    def draw(self) -> Any:
        obs = [
            np.random.normal(),
            random.gauss(0, 1),
            self.action_space.sample()[0],
            self.observation_space.sample()[0],
        ]
        return np.array(obs, dtype=np.float32)


class TorchGusts(Gusts):
    """Draws from torch's stream too, which a worker would need seconds to import."""

    def draw(self) -> Any:
        return super().draw() + torch.randn(4).numpy()


def gusts(num_workers: int, seed: int = 0, kind: Any = Gusts) -> torch.Tensor:
    """Observations, rewards and ends of ten steps in three rows, of which the second pauses once: [10, 3, 6]."""
    family = GymnasiumFamily(kind, {"gain": Choice([1])}, horizon=6, num_workers=num_workers)
    env = family.make_env(3, generator(seed))
    env.reset(family.sample(3, "train", generator()))
    steps = []
    for index in range(10):
        step = env.step(torch.zeros(3, 2), torch.tensor([True, index != 4, True]))
        steps.append(torch.cat([step.obs, step.reward[:, None], step.terminated[:, None].float()], 1))
    env.close()
    return torch.stack(steps)


def test_environments_that_use_the_global_streams_follow_the_seed_whatever_the_workers():
    np.random.seed(1)
    reference, with_torch = gusts(num_workers=0), gusts(num_workers=0, kind=TorchGusts)
    np.random.seed(2)
    random.seed(2)
    torch.manual_seed(2)
    assert torch.equal(with_torch, gusts(num_workers=0, kind=TorchGusts))
    assert torch.equal(reference, gusts(num_workers=2))
    assert not torch.equal(reference, gusts(num_workers=0, seed=1))
    rows = reference.transpose(0, 1)[..., :5].flatten(1)
    assert len(rows.unique(dim=0)) == 3
    assert len(reference[:, 0, :4].unique()) == 40  # nothing repeats from step to step


def test_a_generator_that_no_seed_reaches_is_warned_of_once(caplog):
    class Own(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.random = np.random.default_rng()

        def reset(self, **arguments: Any) -> Any:
            super().reset(**arguments)
            return self.random.normal(size=2), {}

    for _ in range(2):
        family_of(Own, name="own")
    assert [line.split(":")[0] for line in caplog.messages] == ["own"]
    assert "two starts from one seed differ, so runs with one seed will" in caplog.messages[0]


def test_the_programs_own_streams_are_left_alone():
    before = state_of_streams()
    gusts(num_workers=0, kind=TorchGusts)
    assert state_of_streams() == before


def state_of_streams() -> tuple[Any, ...]:
    return str(np.random.get_state(legacy=False)), random.getstate(), torch.get_rng_state().tolist()


# Back again: metrics as `info` of other libraries


def test_metrics_are_info_of_the_bridges():
    family = family_of(info=lambda clock: {"clock": clock}, horizon=3)
    action = np.zeros(2, np.float32)
    single: Any = GymnasiumEnv(family)
    single.reset(seed=0)
    assert single.step(action)[4] == {"clock": 1.0}
    many: Any = GymnasiumVectorEnv(family, num_envs=2)
    many.reset(seed=0)
    infos = [many.step(np.zeros((2, 2), np.float32))[4] for _ in range(3)]
    assert [info["clock"].tolist() for info in infos] == [[1, 1], [2, 2], [0, 0]]
    assert [info["_clock"].tolist() for info in infos] == [[True, True], [True, True], [False, False]]
    assert infos[2]["final_info"]["clock"].tolist() == [3, 3]
    sb3: Any = as_vec_env(family, 2)
    sb3.reset()
    assert [report["clock"] for report in sb3.step(np.zeros((2, 2), np.float32))[3]] == [1.0, 1.0]
