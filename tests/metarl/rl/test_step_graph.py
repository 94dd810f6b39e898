"""A rollout's step as a graph: replayed on fixed memory, as by CUDA, it gives the steps that are taken one by one."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from agents.memories import MEMORIES
from agents.pearl import PEARLConfig
from agents.promp import ProMPConfig
from agents.rl2 import RL2Config
from envs.catalog import make
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation, Wind
from envs.wrappers import TimeAware
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.regression import Sinusoid
from metarl.protocols import VectorEnv
from metarl.records import Trajectory
from metarl.rl.rollouts import collect
from metarl.rl.step_graph import CannotRecordError
from metarl.trainer import TrainConfig, Trainer

aten: Any = torch.ops.aten


class Operations(TorchDispatchMode):
    """The operations of a step, to be done again on the same memory; the host may ask for no number meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in (aten._local_scalar_dense, aten.item, aten.nonzero), "the host waits"
        result = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, result))
        return result

    def again(self) -> None:
        for func, args, kwargs, result in self.done:
            for place, value in zip(pytree.tree_leaves(result), pytree.tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


def emulated(
    warm_up: Callable[[], None], step: Callable[[], None], generators: Sequence[torch.Generator]
) -> Callable[[], None]:
    """A CUDA graph on the CPU; recording takes the first step, where CUDA would only note it."""
    states = [generator.get_state() for generator in generators]
    warm_up()
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    operations = Operations()
    with operations:
        step()
    is_first = True

    def replay() -> None:
        nonlocal is_first
        if not is_first:
            operations.again()
        is_first = False

    return replay


def rollout(config: Any, family: Any, record: Any = None, change: Any = None, mode: bool = False) -> Trajectory[Any]:
    """Three episodes in four rows of two tasks, from two streams of random numbers."""
    generator, noise = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    agent = config.make(family.observation_space, family.action_space, num_iterations=1, generator=generator)
    agent.act = agent.act if change is None else change(agent.act)
    env: VectorEnv = family.make_env(4, generator)
    tasks = family.sample(2, "train", generator)
    return collect(env, agent, tasks, 3, generator=None if mode else noise, record=record)


@pytest.mark.parametrize("family", [GridNavi(horizon=4), Wind(horizon=4)], ids=["discrete", "continuous"])
@pytest.mark.parametrize("memory", ["gru", "lstm", "none"])
def test_a_replayed_rollout_is_the_one_taken_step_by_step(memory: str, family: Any) -> None:
    config = RL2Config(memory=MEMORIES[memory], hidden_size=8)
    expected, found = rollout(config, family), rollout(config, family, emulated)
    assert len(pytree.tree_leaves(expected)) > 8
    for one, other in zip(pytree.tree_leaves(expected), pytree.tree_leaves(found), strict=True):
        assert torch.equal(one, other)
    assert len(found.valid) == 12
    assert not torch.equal(found.obs[1], found.obs[2])


def test_so_is_one_of_an_agent_that_adapts_between_episodes_and_one_without_noise() -> None:
    for config, mode in ((ProMPConfig(num_rollouts=2), False), (RL2Config(hidden_size=8), True)):
        expected, found = (rollout(config, Wind(horizon=4), record, mode=mode) for record in (None, emulated))
        assert torch.equal(expected.obs, found.obs)
        assert torch.equal(expected.decision.action, found.decision.action)


def test_a_step_that_depends_on_the_host_would_be_noticed() -> None:
    def counting(act: Any) -> Any:
        number = 0

        def later(state: Any, obs: Tensor, generator: Any) -> Any:
            nonlocal number
            number += 1
            return act(state, obs + number, generator)

        return later

    config = RL2Config(memory=MEMORIES["none"])
    expected, found = (rollout(config, Wind(horizon=4), record, counting) for record in (None, emulated))
    assert not torch.equal(expected.decision.value, found.decision.value)


def test_on_a_cpu_the_setting_has_no_effect() -> None:
    family, agent = Wind(horizon=4), RL2Config(hidden_size=8, num_epochs=1)
    trained = []
    for graphs in (False, True):
        train = TrainConfig(num_iterations=1, num_tasks=4, graphs=graphs)
        trainer = Trainer(family, agent, train, agent_name="rl2", seed=0)
        trainer.iterate()
        trained.append(trainer.agent.state_dict()["net"])
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())


@pytest.mark.parametrize(
    ("config", "family", "who"),
    [
        (PEARLConfig(), Wind(horizon=4), "PEARLConfig: its steps cannot be recorded"),
        (MAMLConfig(), Sinusoid(), "few-shot families such as sinusoid"),
    ],
)
def test_a_collection_that_records_no_steps_refuses_the_setting(config: Any, family: Any, who: str) -> None:
    with pytest.raises(ValueError, match=f"graphs is True; must be False for {who}"):
        Trainer(family, config, TrainConfig(num_iterations=1, num_tasks=4, graphs=True), agent_name="agent", seed=0)


@pytest.mark.parametrize(
    ("config", "family", "message"),
    [
        (RL2Config(memory=MEMORIES["transformer"], hidden_size=8), Wind(horizon=4), "a tensor of shape"),
        (PEARLConfig(hidden_sizes=(8,), encoder_sizes=(8,)), Wind(horizon=4), "replaces a PEARLState"),
        (RL2Config(hidden_size=8), PointNavigation(horizon=4), "its episodes may end early"),
        (RL2Config(hidden_size=8), make("half_cheetah_vel", horizon=4), "depends on more than tensors"),
        (RL2Config(hidden_size=8), TimeAware(Wind(horizon=4)), "depends on more than tensors"),
    ],
)
def test_a_step_that_cannot_be_recorded_is_refused(config: Any, family: Any, message: str) -> None:
    with pytest.raises(CannotRecordError, match=message):
        rollout(config, family, emulated)
