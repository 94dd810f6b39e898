"""What only a critic sees: the policy never depends on it, evaluations do without it, and runs resume exactly."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from agents.hypernetwork_policy import HypernetworkPolicyConfig
from agents.rl2 import RL2, RL2Config
from envs.check import check_family
from envs.locomotion.arm import ArmReach
from envs.torch_families.navigation import PointNavigation
from envs.wrappers import ActionRepeat, Delayed, History, Noisy, TimeAware
from metarl.adaptation.no_memory import NoMemoryConfig
from metarl.records import Trajectory
from metarl.rl.rollouts import collect
from metarl.trainer import TrainConfig, Trainer

ARM = ArmReach(horizon=4)
POINT = PointNavigation(horizon=4)
TRAIN = TrainConfig(num_iterations=4, num_tasks=6, eval_every=0, eval_tasks=4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trainer(family: Any, sees: Any, **settings: Any) -> Trainer:
    config = RL2Config(**{"hidden_size": 8, "critic_sees": sees, **settings})
    return Trainer(family, config, TRAIN, agent_name="rl2", seed=0)


def experience(trained: Trainer) -> tuple[RL2, Trajectory[Any]]:
    learner: Any = trained.agent
    (trajectory,) = trained.source.draw(learner).experience
    return learner, trajectory


def test_steps_hold_what_goes_with_the_observation_acted_on():
    learner, trajectory = experience(trainer(ARM, "privileged"))
    assert trajectory.privileged is not None
    assert trajectory.privileged.shape == (*trajectory.valid.shape, 16)
    assert ARM.privileged_size == learner.privileged_size == 16
    assert torch.equal(trajectory.privileged[0, :, 13:], trajectory.privileged[-1, :, 13:])  # the arm's masses stay
    assert not torch.equal(trajectory.privileged[0, :, :13], trajectory.privileged[-1, :, :13])
    _, of_task = experience(trainer(POINT, "task"))
    assert of_task.privileged is not None
    assert of_task.privileged.shape[-1] == 4
    assert float(of_task.privileged[..., :2].std(1).min()) > 0  # the goals, and winds that do not blow


@pytest.mark.parametrize(
    "settings", [{}, {"memory": NoMemoryConfig()}, {"policy": HypernetworkPolicyConfig()}, {"segment": 3}], ids=str
)
def test_the_critic_alone_depends_on_it(settings):
    trained = trainer(ARM, "privileged", **settings)
    trained.iterate()  # so that its moments are not the identity
    learner, trajectory = experience(trained)
    assert trajectory.privileged is not None
    assert trajectory.decision.value.isnan().all()  # acting does not know it
    other = replace(trajectory, privileged=trajectory.privileged + 1.0)
    one, two = (learner._evaluate(learner._inputs(each), trajectory.decision.action) for each in (trajectory, other))
    assert torch.equal(one.log_prob, two.log_prob)
    assert torch.equal(one.entropy, two.entropy)
    assert not torch.allclose(one.value, two.value)
    assert learner._valued(trajectory).decision.value.isfinite().all()
    learner.net.zero_grad()
    one.log_prob.sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in learner.net.critic.parameters())


def test_the_critic_learns_from_it():
    """Rewards that are a number of the task, which is not observed."""

    def reward(physics: Any, action: Any, task: Any) -> Any:
        return task.distance

    changes: dict[str, Any] = {"observe": lambda physics, task: physics.ctrl, "reward": reward, "privileged": None}
    family = replace(ARM, horizon=1, num_episodes=1, unchecked=("azimuth", "elevation"), **changes)
    explained = {}
    for sees in ("nothing", "task"):
        config = RL2Config(memory=NoMemoryConfig(), critic_sees=sees, num_epochs=8, target_kl=None, learning_rate=1e-2)
        train = TrainConfig(num_iterations=4, num_tasks=64, eval_every=0)
        trained = Trainer(family, config, train, agent_name="rl2", seed=0)
        explained[sees] = [trained.iterate()["train/explained_variance"] for _ in range(4)][-1]
    assert explained["nothing"] < 0.2
    assert explained["task"] > 0.5


def test_evaluation_and_acting_need_none_of_it():
    trained = trainer(ARM, "privileged")
    trained.iterate()
    learner: Any = trained.agent
    blind = replace(ARM, privileged=None)
    tasks = ARM.sample(5, "test", generator())
    seeing, unseeing = (
        collect(family.make_env(5, generator()), learner, tasks, 2, generator=generator(1)) for family in (ARM, blind)
    )
    assert unseeing.privileged is None
    assert torch.equal(seeing.decision.action, unseeing.decision.action)
    assert trained.evaluate("test", num_tasks=4).num_tasks == 4
    with pytest.raises(ValueError, match="the trajectory has no privileged observations, which the critic sees"):
        learner.update([unseeing], generator())


@pytest.mark.parametrize(("family", "sees"), [(ARM, "privileged"), (POINT, "task")])
def test_a_resumed_run_is_the_run(family, sees):
    whole = trainer(family, sees)
    half, rest = trainer(family, sees), trainer(family, sees)
    for trained, count in ((whole, 4), (half, 2)):
        for _ in range(count):
            trained.iterate()
    rest.load_state_dict(copy.deepcopy(half.state_dict()))
    for _ in range(2):
        rest.iterate()
    one, two = whole.agent.state_dict(), rest.agent.state_dict()
    assert "privileged" in one["moments"]
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_a_family_without_any_is_named():
    with pytest.raises(ValueError, match="critic_sees is 'privileged', but point_navigation has no such observations"):
        trainer(POINT, "privileged")
    with pytest.raises(ValueError, match="critic_sees is 'all'; must be one of nothing, privileged, task"):
        RL2Config(critic_sees="all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrap",
    [
        TimeAware,
        lambda family: ActionRepeat(family, repeat=2),
        lambda family: Noisy(family, obs_noise=0.1),
        lambda family: Delayed(family, obs_delay=1),
        lambda family: History(family, num_steps=2),
    ],
    ids=["time_aware", "action_repeat", "noisy", "delayed", "history"],
)
def test_it_passes_through_wrappers(wrap):
    family = wrap(ARM)
    assert family.privileged_size == 16
    _, trajectory = experience(trainer(family, "privileged"))
    assert trajectory.privileged is not None
    assert trajectory.privileged.shape[-1] == 16


def test_it_is_of_the_new_episode_where_one_has_ended():
    family = replace(
        ARM, horizon=2, privileged=lambda physics, task: torch.cat([physics.qpos, physics.ctrl], 1), start_noise=0.5
    )
    check_family(family)
    env = family.make_env(2, generator())
    step = env.reset(family.sample(2, "train", generator()))
    for _ in range(5):
        assert step.privileged is not None
        assert torch.allclose(step.privileged[:, 5:], step.obs[:, :5])
        step = env.step(torch.ones(2, 5))
