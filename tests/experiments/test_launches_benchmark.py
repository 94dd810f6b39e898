"""What a GPU's host is asked: no step of a rollout waits for a number, and launches are counted as they are."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from agents.maml import MAMLTRPOConfig
from agents.memories import MEMORIES
from agents.pearl import PEARLConfig
from agents.promp import ProMPConfig
from agents.rl2 import RL2Config
from agents.varibad import VariBADConfig
from envs.torch_families.navigation import PointNavigation
from envs.wrappers import ActionRepeat, TimeAware
from experiments.benchmarks import launches
from experiments.benchmarks.launch_counter import META, Counts, OnMeta, counting
from metarl.rl.rollouts import collect

FAMILY = PointNavigation(horizon=4)  # whose episodes may end early
AGENTS: dict[str, Any] = {
    **{f"rl2_{name}": RL2Config(memory=memory, hidden_size=8) for name, memory in MEMORIES.items()},
    "varibad": VariBADConfig(),
    "pearl": PEARLConfig(hidden_sizes=(8,), encoder_sizes=(8,)),
    "maml_trpo": MAMLTRPOConfig(num_rollouts=2),
    "promp": ProMPConfig(num_rollouts=2),
}


def rollout(config: Any, family: Any = FAMILY, act: Any = None) -> tuple[launches.Watched, Counts]:
    """The counts of a rollout of two episodes in two tasks, by step and in all."""
    generator = OnMeta()
    with counting() as counter:
        agent = config.make(family.observation_space, family.action_space, num_iterations=1, generator=generator)
        agent.act = act(agent.act) if act else agent.act
        env = launches.Watched(family.make_env(4, generator), family.horizon, counter)
        tasks = family.sample(2, "train", generator)
        before = counter.counts
        collect(env, agent, tasks, 2, generator=generator)
        return env, counter.counts - before


@pytest.mark.parametrize("name", AGENTS)
def test_no_step_of_a_rollout_waits_for_a_gpu(name: str) -> None:
    env, _ = rollout(AGENTS[name])
    num_launches, waits = env.per_step()
    assert num_launches > 10
    assert waits == 0


@pytest.mark.parametrize("family", [ActionRepeat(FAMILY), TimeAware(FAMILY)])
def test_nor_does_one_of_a_wrapped_family(family: Any) -> None:
    assert rollout(RL2Config(hidden_size=8), family)[0].per_step()[1] == 0


def test_a_number_that_is_asked_for_at_each_step_is_noticed() -> None:
    def asking(act: Any) -> Any:
        def ask(state: Any, obs: torch.Tensor, generator: Any) -> Any:
            assert float(obs.sum()) != 0
            return act(state, obs, generator)

        return ask

    assert rollout(RL2Config(hidden_size=8), act=asking)[0].per_step()[1] == 1


def test_a_rollout_of_known_length_waits_only_at_its_end() -> None:
    """As often for many more steps, and without a look at the rows every 64 steps."""
    short, long = (rollout(AGENTS["rl2_gru"], replace(FAMILY, horizon=horizon))[1] for horizon in (2, 34))
    assert short.waits == long.waits < 10
    assert long.launches > 5 * short.launches


def test_operations_are_counted_as_a_gpu_would_launch_them() -> None:
    with counting() as counter:
        x = torch.empty(3, 2, 5, device=META)
        layer = nn.GRU(5, 4, device=META)
        before = counter.counts

        def since() -> tuple[int, int]:
            nonlocal before
            now, before = counter.counts - before, counter.counts
            return now.launches, now.waits

        x.transpose(0, 1).unsqueeze(0).detach()
        assert since() == (0, 0)
        (x + 1).mul_(2)
        assert since() == (2, 0)
        read, _ = layer(x, torch.zeros(1, 2, 4, device=META))
        assert since() == (1 + 2 * 3 + 1, 0)  # zeros, a product and the gates at each step, and the inputs' product
        torch.autograd.grad(read, layer.all_weights[0], torch.empty_like(read))
        assert since()[0] >= 2 * 3 + 2
        layer.zero_grad()
        optimizer = torch.optim.Adam(layer.parameters())
        since()
        optimizer.step()
        assert since() == (1, 0)
        assert bool((x > 0).all())
        assert not bool((x > 0).any())
        assert since() == (4, 2)
        assert x[x > 0].shape == (30,)
        assert since() == (1, 1)
        assert x.sum().cpu().device.type == "cpu"
        assert x[0, 0].tolist() == [0] * 5
        assert since() == (1, 2)


def test_an_update_of_rl2_waits_twice_per_gradient_step() -> None:
    """For its early stop, and for the check of its parameters."""
    waits = [launches.count_of(_small(num_epochs)).update.waits for num_epochs in (1, 2)]
    assert waits[1] - waits[0] == 2 * 2


def _small(num_epochs: int) -> Any:
    experiment = launches.load("grid_navi/rl2")
    agent = replace(experiment.agent, num_epochs=num_epochs, num_minibatches=2, hidden_size=8)
    return replace(experiment, family=replace(experiment.family, horizon=2), agent=agent)


def test_the_table_and_the_object_have_the_same_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = launches.Counted(50.0, 0.0, Counts(4000, 10))
    monkeypatch.setattr(launches, "run", lambda settings: {"a/b": counted})
    launches.main(json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["counted"]["a/b"] == {
        "step_launches": 50.0,
        "step_waits": 0.0,
        "update": {"launches": 4000, "waits": 10},
    }
    launches.main()
    out = capsys.readouterr().out
    assert "0.40" in out  # ms of a step: 50 launches of 8 microseconds
    assert "mujoco-warp is not installed" in out


def test_a_cost_below_zero_is_named() -> None:
    with pytest.raises(ValueError, match="eager_microseconds is -1"):
        launches.Settings(eager_microseconds=-1)
