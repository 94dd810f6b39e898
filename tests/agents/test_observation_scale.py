"""Observations in any unit: normalised by running moments where asked for, spoken of where not."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch.utils import _pytree as pytree

from agents.maml import MAMLTRPOConfig
from agents.pearl import PEARLConfig
from agents.promp import ProMPConfig
from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.navigation import PointNavigation
from metarl.rl.trials import scale_warning
from metarl.trainer import TrainConfig, Trainer


class InUnits:
    """An environment whose observations are in another unit."""

    def __init__(self, env: Any, unit: float) -> None:
        self._env, self._unit = env, unit

    def __getattr__(self, name):
        return getattr(self._env, name)

    def _in_unit(self, step):
        return replace(step, obs=step.obs * self._unit, next_obs=step.next_obs * self._unit)

    def reset(self, tasks):
        return self._in_unit(self._env.reset(tasks))

    def step(self, action, active=None):
        return self._in_unit(self._env.step(action, active))


@dataclass(frozen=True)
class Units(PointNavigation):
    """Point navigation as seen in a unit of which one metre has so many."""

    unit: float = 1.0

    name = "units"

    @property
    def observation_space(self) -> spaces.Box:
        space = super().observation_space
        return spaces.Box(space.low * self.unit, space.high * self.unit)

    def make_env(self, num_rows, generator) -> Any:
        return InUnits(super().make_env(num_rows, generator), self.unit)


SMALL = {
    "maml": MAMLTRPOConfig(hidden_sizes=(8,), num_rollouts=2, num_cg_steps=2),
    "promp": ProMPConfig(hidden_sizes=(8,), num_rollouts=2, num_epochs=1),
    "pearl": PEARLConfig(
        hidden_sizes=(8,),
        encoder_sizes=(8,),
        num_train_tasks=2,
        initial_episodes=1,
        prior_episodes=1,
        extra_episodes=1,
        num_gradient_steps=2,
        meta_batch=2,
        batch=8,
        context=8,
        capacity=100,
    ),
}


def trainer(name: str, unit: float = 1.0, **settings) -> Trainer:
    config = replace(SMALL[name], **settings)
    train = TrainConfig(num_iterations=4, num_tasks=2, eval_tasks=2)
    return Trainer(Units(horizon=5, unit=unit), config, train, agent_name=name, seed=0)


def numbers(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("name", SMALL)
def test_resume_is_bit_for_bit_with_normalised_observations(name):
    whole, half, rest = (trainer(name, normalise_obs=True) for _ in range(3))
    for _ in range(3):
        whole.iterate()
    for _ in range(2):
        half.iterate()
    rest.load_state_dict(half.state_dict())
    rest.iterate()
    expected, got = numbers(whole.agent.state_dict()), numbers(rest.agent.state_dict())
    assert len(expected) == len(got)
    assert all(torch.equal(one, two) for one, two in zip(expected, got, strict=True))
    assert float(rest.agent.obs_moments.count) > 0


@pytest.mark.parametrize("name", SMALL)
def test_moments_hold_still_while_an_iteration_collects_and_are_of_what_it_collected(name):
    made = trainer(name, normalise_obs=True)
    draw = made.source.draw(made.agent)
    assert float(made.agent.obs_moments.count) == 0
    made.agent.update(draw.experience, made.generators["update"])
    moments = made.agent.obs_moments
    assert float(moments.count) == draw.amount
    assert bool((moments.std > 0.01).all())


@pytest.mark.parametrize("name", SMALL)
def test_a_normalised_agent_decides_alike_in_metres_and_millimetres(name):
    metres, millimetres = (trainer(name, unit, normalise_obs=True) for unit in (1.0, 1000.0))
    obs = torch.randn(6, 2, generator=torch.Generator().manual_seed(1)) + 0.5
    for made, unit in ((metres, 1.0), (millimetres, 1000.0)):
        made.agent.obs_moments = made.agent.obs_moments.of(unit * obs)
    actions = [
        made.agent.act(made.agent.prior(6), unit * obs, None).action
        for made, unit in ((metres, 1.0), (millimetres, 1000.0))
    ]
    assert torch.allclose(*actions, atol=1e-6)
    raw = [made.agent.obs_moments.mean for made in (metres, millimetres)]
    assert torch.allclose(1000 * raw[0], raw[1])


@pytest.mark.parametrize("name", SMALL)
def test_without_it_checkpoints_are_what_they_were(name):
    assert "obs_moments" not in trainer(name).agent.state_dict()


@pytest.mark.parametrize("name", SMALL)
def test_badly_scaled_observations_are_spoken_of_once_and_name_the_field(name, capsys):
    made = trainer(name, unit=1e5)
    made.iterate()
    made.iterate()
    said = capsys.readouterr().err
    assert said.count("metarl: ") == 1
    assert "has a root mean square of" in said
    assert "--agent.normalise-obs True" in said
    for quiet in (trainer(name), trainer(name, unit=1e5, normalise_obs=True)):
        quiet.iterate()
    assert capsys.readouterr().err == ""


def test_a_memory_without_normalisation_is_warned_too_and_bandits_are_not(capsys):
    train = TrainConfig(num_iterations=1, num_tasks=2)
    rl2 = RL2Config(hidden_size=8, normalise_obs=False)
    Trainer(BernoulliBandit(), rl2, train, agent_name="rl2", seed=0).iterate()
    assert capsys.readouterr().err == ""
    Trainer(Units(horizon=5, unit=1e-5), rl2, train, agent_name="rl2", seed=0).iterate()
    assert "root mean square" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("obs", "said"),
    [
        (torch.tensor([[1.0, 600.0], [1.0, -600.0]]), "entry 1, has a root mean square of 600"),
        (torch.tensor([[1e-4], [2e-4]]), "entry 0, has a root mean square of 0.000158"),
        (torch.zeros(3, 2), None),
        (torch.tensor([[0.1, 8.0]]), None),  # as joints' velocities are
        (torch.tensor([[torch.nan]]), None),  # an error of another kind
        (torch.zeros(3, 0), None),
    ],
)
def test_what_is_badly_scaled(obs, said):
    warning = scale_warning(obs)
    assert warning is None if said is None else said in str(warning)


@pytest.mark.learn
@pytest.mark.parametrize(("name", "least"), [("maml", -12.0), ("pearl", -35.0)])
def test_agents_learn_in_millimetres(name, least):
    """Without normalisation MAML's return after one step stays near -14, and PEARL's falls to -58."""
    settings = {
        "maml": MAMLTRPOConfig(normalise_obs=True),
        "pearl": PEARLConfig(
            num_train_tasks=20,
            num_gradient_steps=100,
            meta_batch=8,
            batch=64,
            context=64,
            capacity=5000,
            normalise_obs=True,
        ),
    }
    train = TrainConfig(num_iterations=20, num_tasks=20, eval_tasks=40)
    made = Trainer(Units(horizon=50, unit=1000.0), settings[name], train, agent_name=name, seed=0)
    for _ in range(train.num_iterations):
        made.iterate()
    assert max(point.mean for point in made.evaluate().points[1:]) > least
