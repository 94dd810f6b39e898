"""Hypernetwork policies: what is written, where all tasks begin, and RL2 and VariBAD with them."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from agents.hypernetwork_policy import HypernetworkPolicyConfig, Initialisation, WrittenLinear, WrittenNet
from agents.rl2 import RL2, RL2Config
from agents.varibad import VariBAD, VariBADConfig
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from metarl.adaptation.no_memory import NoMemoryConfig
from metarl.nets.mlp import mlp
from metarl.records import Step
from metarl.trainer import TrainConfig, Trainer

GRID, POINT = GridNavi(horizon=3), PointNavigation(horizon=3)
SMALL: dict[str, Any] = {"hidden_size": 8, "num_minibatches": 2, "num_epochs": 2}
AGENTS: dict[str, Any] = {
    "rl2": lambda policy: RL2Config(policy=policy, **SMALL),
    "varibad": lambda policy: VariBADConfig(policy=policy, latent_size=2, vae_batch=4, num_vae_steps=1, **SMALL),
}
every_agent = pytest.mark.parametrize("make", AGENTS.values(), ids=AGENTS)
both_initialisations = pytest.mark.parametrize("initialisation", ["bias", "kaiming"])
everywhere = pytest.mark.parametrize("family", [GRID, POINT], ids=["discrete", "continuous"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def writer(**settings: Any) -> HypernetworkPolicyConfig:
    return HypernetworkPolicyConfig(**{"embedding_size": 3, "hidden_sizes": (5, 4), **settings})


def trainer(config: Any, family: Any = GRID) -> Trainer:
    train = TrainConfig(num_iterations=4, num_tasks=8, eval_tasks=4)
    return Trainer(family, config, train, agent_name="agent", seed=0)


def policy_parameters(agent: RL2 | VariBAD) -> dict[str, Tensor]:
    net = agent.net if isinstance(agent, RL2) else agent.policy
    return dict(net.named_parameters())


@pytest.mark.parametrize("code_first", [True, False])
def test_a_written_net_is_the_plain_net_with_the_weights_written_for_each_row(code_first):
    plain = mlp((4, 6, 2), activation="tanh", output_gain=1.0, generator=seeded())
    net = WrittenNet(copy.deepcopy(plain), writer(), code_first=code_first, generator=seeded())
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=seeded(parameter.numel()))
    code, x = torch.randn(7, 3, generator=seeded(1)), torch.randn(7, 4, generator=seeded(2))
    weights = {}
    for name, layer in net.named_children():
        if isinstance(layer, WrittenLinear):
            weights[f"{name}.weight"], weights[f"{name}.bias"] = layer.written(code)
    expected = functional_call(plain, weights, (x.unsqueeze(1),)).squeeze(1)  # each row is one task
    features = torch.cat([code, x] if code_first else [x, code], -1)
    torch.testing.assert_close(net(features), expected)
    torch.testing.assert_close(net(features.expand(3, -1, -1)), expected.expand(3, -1, -1))


def test_with_bias_hyperinit_all_codes_begin_with_the_usual_net():
    plain = mlp((4, 6, 2), activation="tanh", output_gain=1.0, generator=seeded())
    net = WrittenNet(copy.deepcopy(plain), writer(), code_first=True, generator=seeded())
    code, x = torch.randn(7, 3, generator=seeded(1)), torch.randn(7, 4, generator=seeded(2))
    torch.testing.assert_close(net(torch.cat([code, x], -1)), plain(x))


def test_heads_initialised_as_any_layer_write_weights_that_are_far_too_large():
    plain = mlp((40, 60, 2), activation="tanh", output_gain=1.0, generator=seeded())
    naive = WrittenNet(copy.deepcopy(plain), writer(initialisation="kaiming"), code_first=True, generator=seeded())
    layer, usual = naive[0], plain[0]
    assert isinstance(layer, WrittenLinear)
    deviation = layer.weight_heads.detach().std().item()
    assert deviation == pytest.approx((2 / 3) ** 0.5, rel=0.05)  # He et al.: the root of two over the code's size
    weight, bias = layer.written(torch.ones(3))
    assert weight.std() > 5 * usual.weight.std()  # type: ignore[operator]
    assert bias.std() > 0


def decided(agent: Any, family: Any) -> tuple[Tensor, Tensor]:
    """The critic's values and the latents of eight rows in which all but the rewards were the same."""
    obs, no = torch.zeros(8, *family.observation_space.shape), torch.zeros(8, dtype=torch.bool)
    state = agent.observe(agent.prior(8), None, Step(obs, obs, torch.zeros(8), no, no))
    action = agent.act(state, obs, None).action
    state = agent.observe(state, action, Step(obs, obs, torch.arange(8.0), no, no))
    return agent.act(state, obs, None).value, agent.state_vectors(state)


@every_agent
@everywhere
@both_initialisations
def test_tasks_begin_with_one_policy_under_bias_hyperinit_alone(make, family, initialisation: Initialisation):
    agent = trainer(make(writer(initialisation=initialisation)), family).agent
    value, latent = decided(agent, family)
    assert not torch.equal(latent[0], latent[1])
    assert torch.equal(value, value[:1].expand(8)) == (initialisation == "bias")


@every_agent
@everywhere
@both_initialisations
def test_after_the_first_step_the_gradient_reaches_every_parameter(make, family, initialisation: Initialisation):
    """Heads of zeros give the latent no gradient: the embedding learns from the second step on."""
    made = trainer(make(writer(initialisation=initialisation)), family)
    made.iterate()
    for name, value in policy_parameters(made.agent).items():
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name


@every_agent
@everywhere
def test_a_resumed_training_is_the_same_bit_for_bit(make, family):
    whole, first, second = (trainer(make(writer()), family) for _ in range(3))
    for _ in range(3):
        whole.iterate()
    first.iterate()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(2):
        second.iterate()
    assert second.metrics == whole.metrics
    theirs = policy_parameters(whole.agent)
    assert all(torch.equal(value, theirs[name]) for name, value in policy_parameters(second.agent).items())


def test_heads_are_saved_under_the_names_that_they_always_had():
    names = {name.split(".")[0] for name in trainer(RL2Config(**SMALL)).agent.net.state_dict()}
    assert names == {"policy", "critic", "memory"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RL2Config(policy="hypernetwork"), "policy is 'hypernetwork'; must be a HeadsConfig or Hyper"),  # type: ignore[arg-type]
        (
            lambda: RL2Config(policy=writer(), memory=NoMemoryConfig()),
            "policy is a hypernetwork; must be heads without",
        ),
        (lambda: writer(initialisation="normc"), "initialisation is 'normc'; must be one of bias, kaiming"),
        (lambda: writer(embedding_size=0), "embedding_size is 0; must be at least 1"),
        (lambda: writer(hidden_sizes=(0,)), "hidden_sizes is (0,); must be at least 1"),
    ],
)
def test_a_wrong_setting_is_named(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make()


@pytest.mark.learn
def test_meta_training_learns_to_learn_a_tiny_bandit():
    """Two arms, ten pulls: knowing nothing earns 5.0; the best arm alone 6.67; playing well about 6.1."""
    config = RL2Config(
        hidden_size=32,
        policy=HypernetworkPolicyConfig(hidden_sizes=(16,)),
        learning_rate=5e-3,
        final_learning_rate=1e-3,
        num_minibatches=2,
    )
    train = TrainConfig(num_iterations=40, num_tasks=256)
    made = Trainer(BernoulliBandit(num_arms=2, num_pulls=10), config, train, agent_name="rl2", seed=0)
    before = made.evaluate(num_tasks=2000)
    for _ in range(40):
        made.iterate()
    after = made.evaluate(num_tasks=2000)
    assert before.total.mean < 5.3
    assert after.total.mean > 5.8
    assert after.points[-1].mean > after.points[0].mean + 0.06
