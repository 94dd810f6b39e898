"""MAML and ProMP: gradients and curvature against what is computed another way, the line search, and learning."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.func import functional_call

from agents import meta_objective
from agents.maml import MAML, MAMLConfig, MAMLTRPOConfig, PlainMAMLConfig
from agents.meta_objective import MetaObjective, Samples, inner_loss, samples_of
from agents.outer_steps import CurvatureProduct
from agents.promp import ProMPConfig
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.navigation import PointNavigation
from experiments.cli.progress import returns_text
from metarl.adaptation.gradient import GradientAdaptation, Params
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.evaluation import evaluate, measure_of
from metarl.nets.mlp import PolicyHead
from metarl.optim import trust_region_step
from metarl.records import SampledDecision, Trajectory
from metarl.rl.linear_baseline import fitted_returns
from metarl.rl.rollouts import run_trial
from metarl.trainer import TrainConfig, Trainer

FAMILY = PointNavigation(horizon=6)
SMALL: dict[str, Any] = {"hidden_sizes": (5,), "num_rollouts": 3}
TRPO: dict[str, Any] = {**SMALL, "curvature_stride": 1}
NUM_TASKS = 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(config: MAMLConfig, family: Any = FAMILY, *, spread: float = 0.3) -> MAML:
    agent = config.make(family.observation_space, family.action_space, num_iterations=10, generator=seeded())
    for parameter in agent.policy.net.parameters():  # away from the near-zero head, where much vanishes
        parameter.data += spread * torch.randn(parameter.shape, generator=seeded(1))
    return agent


def trial_of(agent: MAML, family: Any = FAMILY, num_tasks: int = NUM_TASKS) -> list[Trajectory[SampledDecision]]:
    generator = seeded(2)
    env = family.make_env(num_tasks * agent.config.num_rollouts, generator)
    tasks = family.sample(num_tasks, "train", generator)
    return list(run_trial(env, agent, tasks, agent.config.num_inner_steps + 1, generator=generator))


def objective_of(agent: MAML, *, dtype: torch.dtype = torch.float64, credit: float = 0.0) -> MetaObjective:
    samples = [agent._samples(trajectory, NUM_TASKS) for trajectory in trial_of(agent)]
    agent.adaptation.to(dtype)
    samples = [value.map(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf) for value in samples]
    return MetaObjective(agent.adaptation, agent.policy, samples, credit)


def parameters(agent: MAML) -> list[Any]:
    return list(agent.adaptation.parameters())


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


# --- the samples -------------------------------------------------------------------------------------------------


def test_the_baseline_is_the_ridge_regression_of_each_task():
    generator = seeded()
    obs = 20 * torch.randn(7, 6, 2, generator=generator)  # some of them beyond the clip
    time = torch.arange(7).unsqueeze(1).expand(7, 6)
    returns, valid = torch.randn(7, 6, generator=generator), torch.rand(7, 6, generator=generator) < 0.8
    fitted = fitted_returns(obs, time, returns, valid, 3, ridge=0.1)
    for task in range(3):
        rows = slice(2 * task, 2 * task + 2)
        x, t = obs[:, rows].double().clamp(-10, 10), time[:, rows].double()[..., None] / 100
        features = torch.cat([x, x**2, t, t**2, t**3, torch.ones_like(t)], -1)
        used = features[valid[:, rows]]
        gram = used.T @ used + 0.1 * torch.eye(8, dtype=torch.float64)
        weights = torch.linalg.solve(gram, used.T @ returns[:, rows][valid[:, rows]].double())
        torch.testing.assert_close(fitted[:, rows], (features @ weights).float())


def test_features_that_are_all_alike_get_a_larger_ridge_and_what_is_not_finite_is_refused():
    obs, time = torch.zeros(5, 2, 3), torch.zeros(5, 2)
    returns, valid = torch.ones(5, 2), torch.ones(5, 2, dtype=torch.bool)
    torch.testing.assert_close(fitted_returns(obs, time, returns, valid, 1, ridge=1e-9), returns)
    with pytest.raises(FloatingPointError, match="not finite"):
        fitted_returns(torch.full_like(obs, math.nan), time, returns, valid, 1)


def staggered() -> Trajectory[SampledDecision]:
    """Two rows of one task with two episodes each, the first row's shorter; the rest is not valid."""
    ends = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 0], [0, 0], [0, 1]], dtype=torch.bool)
    valid = torch.tensor([[1, 1], [1, 1], [1, 1], [1, 1], [0, 1], [0, 1]], dtype=torch.bool)
    start = torch.zeros_like(ends)
    start[0], start[1:] = True, ends[:-1]
    nothing = torch.zeros_like(ends)
    first = torch.zeros_like(ends)
    first[0] = True
    generator = seeded(3)
    obs, action = torch.randn(6, 2, 2, generator=generator), 0.05 * torch.randn(6, 2, 2, generator=generator)
    return Trajectory(
        obs=obs,
        decision=SampledDecision(action, torch.randn(6, 2, generator=generator)),
        reward=torch.randn(6, 2, generator=generator),
        next_obs=obs,
        terminated=ends,
        truncated=nothing,
        episode_start=start & valid,
        trial_start=first,
        valid=valid,
    )


def test_samples_are_of_each_episode_alone_and_only_of_valid_steps():
    policy, trajectory = make(MAMLTRPOConfig(**TRPO)).policy, staggered()
    samples = samples_of(trajectory, policy, 1, gamma=0.5, lam=1.0)
    torch.testing.assert_close(samples.weight, torch.tensor([[0.1] * 4 + [0.0] * 2 + [0.1] * 6]))
    mean_return = trajectory.reward[trajectory.valid].sum() / 4
    torch.testing.assert_close(samples.mean_return, mean_return[None])
    used = samples.weight > 0
    mean, variance = samples.advantage.sum(), (samples.advantage.square()[used] / samples.weight[used]).sum()
    torch.testing.assert_close(torch.stack([mean, variance]), torch.tensor([0.0, 1.0]), atol=1e-5, rtol=1e-5)
    junk = replace(
        trajectory,
        obs=torch.where(trajectory.valid[..., None], trajectory.obs, 9.0),
        reward=torch.where(trajectory.valid, trajectory.reward, 1e3),
    )
    again = samples_of(junk, policy, 1, gamma=0.5, lam=1.0)
    torch.testing.assert_close(again.advantage[used], samples.advantage[used])
    other = replace(trajectory, reward=trajectory.reward + torch.tensor([0.0, 1.0]))  # of the other row only
    torch.testing.assert_close(samples_of(other, policy, 1, gamma=0.5, lam=1.0).mean_return, mean_return[None] + 6 / 4)


# --- gradients and curvature -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MAMLTRPOConfig, ProMPConfig])
@pytest.mark.parametrize("settings", [{}, {"num_inner_steps": 2}, {"exploration_credit": 1.0}], ids=str)
def test_the_meta_gradient_equals_a_loop_over_tasks_and_finite_differences(kind, settings):
    agent = make(kind(**SMALL, **settings))
    objective = objective_of(agent, credit=agent.config.exploration_credit)
    gradient = flat(torch.autograd.grad(objective.loss(objective.states()), parameters(agent)))
    torch.testing.assert_close(gradient, flat(torch.autograd.grad(looped(agent, objective), parameters(agent))))
    direction = torch.randn(len(gradient), generator=seeded(4), dtype=torch.float64)
    losses = []
    for sign in (1, -1):
        shift(parameters(agent), sign * 1e-5 * direction)
        losses.append(float(objective.loss(objective.states()).detach()))
        shift(parameters(agent), -sign * 1e-5 * direction)
    assert float(gradient @ direction) == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("steps_at_once", [1, 40, 10_000])
@pytest.mark.parametrize("kind", [MAMLTRPOConfig, ProMPConfig])
def test_the_parts_of_an_objective_make_up_the_whole(kind, steps_at_once, monkeypatch):
    agent = make(kind(**SMALL))
    objective = objective_of(agent, credit=1.0)
    whole = flat(torch.autograd.grad(objective.loss(objective.states(), 0.3), parameters(agent)))
    shift(parameters(agent), 1e-2 * torch.randn(len(whole), generator=seeded(4), dtype=torch.float64))
    divergence = objective.divergence(objective.states(), 1)
    assert divergence > 0
    whole = flat(torch.autograd.grad(objective.loss(objective.states(), 0.3) + divergence, parameters(agent)))
    monkeypatch.setattr(meta_objective, "STEPS_AT_ONCE", steps_at_once)
    parts = objective.parts()
    assert len(parts) == {1: 4, 40: 2, 10_000: 1}[steps_at_once]
    assert sum(part.share for part in parts) == pytest.approx(1)
    total = torch.zeros_like(whole)
    for part in parts:
        states = part.states()
        value = part.share * (part.loss(states, 0.3) + part.divergence(states, 1))
        total += flat(torch.autograd.grad(value, parameters(agent)))
    torch.testing.assert_close(total, whole)


def shift(tensors: list[Tensor], vector: Tensor) -> None:
    for tensor, part in zip(tensors, vector.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.data += part.view_as(tensor)


def looped(agent: MAML, objective: MetaObjective) -> Tensor:
    """The outer loss task by task, with autograd alone."""
    reached = objective.trial[-1].mean_return
    credit = (reached - reached.mean()) / reached.std(correction=0)
    total = torch.zeros((), dtype=torch.float64)
    for task in range(NUM_TASKS):
        params: Params = dict(agent.policy.named_parameters())
        for samples in objective.trial[:-1]:
            ratio, log_prob = scores(agent.policy, params, samples[task])
            if agent.config.exploration_credit:
                total = total - credit[task] * ratio.mean()
            score = log_prob if agent.config.inner_objective == "log_likelihood" else ratio
            loss = -(score * samples.advantage[task]).sum()
            slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            rate = agent.config.inner_lr
            params = {name: p - rate * g for (name, p), g in zip(params.items(), slopes, strict=True)}
        ratio, _ = scores(agent.policy, params, objective.trial[-1][task])
        total = total - (ratio * objective.trial[-1].advantage[task]).sum()
    return total / NUM_TASKS


def scores(policy: PolicyHead, params: dict[str, Tensor], samples: Samples) -> tuple[Tensor, Tensor]:
    log_prob = functional_call(policy, params, (samples.obs,)).log_prob(samples.action)
    return (log_prob - samples.log_prob).exp(), log_prob


def test_the_curvature_product_is_that_of_the_fisher_matrix_through_the_inner_step():
    """F = J' M J, with J the derivative of the adapted policy's means and stds, and M their Fisher matrix."""
    agent = make(MAMLTRPOConfig(**TRPO))
    objective = objective_of(agent)
    product = CurvatureProduct(objective.parts(), parameters(agent))
    size = sum(parameter.numel() for parameter in parameters(agent))
    matrix = torch.stack([product(column) for column in torch.eye(size, dtype=torch.float64)])
    adapted, samples = objective.states()[-1], objective.trial[-1]
    distribution = functional_call(agent.policy, adapted, (samples.obs,))
    log_std = distribution.log_std.expand_as(distribution.mean)
    expected = torch.zeros_like(matrix)
    weight = (samples.weight / NUM_TASKS).flatten()
    for values, fisher in ((distribution.mean, (-2 * log_std).exp()), (log_std, torch.full_like(log_std, 2.0))):
        flat_values = values.reshape(len(weight), -1)
        for item in range(len(weight)):
            for axis in range(flat_values.shape[1]):
                slopes = torch.autograd.grad(
                    flat_values[item, axis], parameters(agent), retain_graph=True, allow_unused=True
                )
                slope = flat(
                    torch.zeros_like(p) if s is None else s for p, s in zip(parameters(agent), slopes, strict=True)
                )
                scale = weight[item] * fisher.reshape(len(weight), -1)[item, axis].detach()
                expected += scale * torch.outer(slope, slope)
    torch.testing.assert_close(matrix, expected)


def test_the_inner_objectives_agree_in_slope_and_only_the_ratio_has_the_returns_curvature():
    """A two-armed bandit in closed form: with p = sigmoid(t), the return's second derivative is p(1-p)(1-2p)(r1-r0).

    Weighing every action by its probability makes the sample means exact expectations.
    """
    space = spaces.Discrete(2)
    policy = PolicyHead((1,), space, activation="tanh", init_std=1.0, generator=seeded())
    logit = torch.tensor(0.7, requires_grad=True, dtype=torch.float64)
    p = torch.sigmoid(logit.detach())
    reward = torch.tensor([1.0, 3.0], dtype=torch.float64)
    probability = torch.stack([1 - p, p])

    def params(value: Tensor) -> dict[str, Tensor]:
        zero = torch.zeros(2, 1, dtype=torch.float64)
        return {"net.0.weight": zero, "net.0.bias": torch.stack([torch.zeros_like(value), value])}

    samples = Samples(
        obs=torch.zeros(2, 1, dtype=torch.float64),
        action=torch.tensor([0, 1]),
        log_prob=probability.log(),
        weight=probability,
        advantage=probability * reward,
        mean_return=torch.zeros((), dtype=torch.float64),
    )
    derivatives = {}
    for kind in ("log_likelihood", "likelihood_ratio"):
        value = -inner_loss(policy, kind)(params(logit), samples)  # type: ignore[arg-type]
        (slope,) = torch.autograd.grad(value, logit, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, logit)
        derivatives[kind] = (slope.item(), curvature.item())
    gap = float(reward[1] - reward[0])
    slope, curvature = float(p * (1 - p)) * gap, float(p * (1 - p) * (1 - 2 * p)) * gap
    assert derivatives["likelihood_ratio"] == pytest.approx((slope, curvature))
    assert derivatives["log_likelihood"][0] == pytest.approx(slope)
    biased = -float(p * (1 - p) * (probability * reward).sum())  # what the log-likelihood's second derivative is
    assert derivatives["log_likelihood"][1] == pytest.approx(biased)
    assert abs(biased - curvature) > 0.1


# --- the outer steps ---------------------------------------------------------------------------------------------


def quadratic(radius: float, slope: float = 1.0) -> tuple[torch.nn.Parameter, Any]:
    x = torch.nn.Parameter(torch.tensor([0.3, -0.4]))
    start = x.detach().clone()

    def evaluate() -> tuple[float, float]:
        return slope * float(x.sum()), float((x.detach() - start).square().sum() / 2)

    settings = {"num_cg_steps": 5, "damping": 0.0, "max_backtracks": 3, "backtrack_ratio": 0.5}
    return x, trust_region_step([x], torch.ones(2), lambda v: v, evaluate, max_kl=radius, **settings)


def test_a_trust_region_step_goes_to_the_edge_along_the_natural_gradient():
    x, step = quadratic(0.04)
    assert step.accepted
    assert step.num_backtracks <= 1  # at the edge itself, rounding decides
    length = math.sqrt(2 * 0.04) * 0.5**step.num_backtracks / math.sqrt(2)
    torch.testing.assert_close(x.detach(), torch.tensor([0.3 - length, -0.4 - length]))


def test_a_rejected_line_search_leaves_the_parameters_as_they_were():
    x, step = quadratic(0.04, slope=-1.0)  # the loss rises along the step
    assert not step.accepted
    assert step.num_backtracks == 3
    assert torch.equal(x.detach(), torch.tensor([0.3, -0.4]))
    with pytest.raises(FloatingPointError, match="gradient of the meta-loss is not finite"):
        trust_region_step(
            [x],
            torch.tensor([math.nan, 0.0]),
            lambda v: v,
            lambda: (0.0, 0.0),
            max_kl=0.1,
            num_cg_steps=1,
            damping=0.0,
            max_backtracks=0,
            backtrack_ratio=0.5,
        )


def test_an_agents_rejected_step_leaves_it_as_it_was():
    agent = make(MAMLTRPOConfig(**TRPO, max_backtracks=0, max_kl=1e-12))
    before = copy.deepcopy(agent.state_dict()["adaptation"])
    metrics = agent.update(trial_of(agent), seeded())
    assert metrics["train/accepted"] == 0
    after = agent.state_dict()["adaptation"]
    assert all(torch.equal(before[name], after[name]) for name in before if isinstance(before[name], Tensor))


def test_a_step_stays_in_the_trust_region_and_lowers_the_loss():
    agent = make(MAMLTRPOConfig(**TRPO))
    metrics = agent.update(trial_of(agent), seeded())
    assert metrics["train/accepted"] == 1
    assert 0 < metrics["train/kl_adapted"] <= 0.01
    assert metrics["train/policy_gradient_loss"] < metrics["train/loss_before"]


def test_epochs_lower_the_loss_and_the_penalty_holds_the_inner_policies():
    moved = {}
    for penalty in (0.0, 100.0):
        agent = make(ProMPConfig(**SMALL, kl_penalty=penalty))
        metrics = agent.update(trial_of(agent), seeded())
        assert metrics["train/policy_gradient_loss"] < metrics["train/loss_before"] or penalty
        moved[penalty] = metrics["train/kl_inner_0"]
    assert 0 < moved[100.0] < moved[0.0] / 2


@pytest.mark.parametrize(("target", "expected"), [(1e3, 0.5e-3), (1e-9, 2e-3), (None, 1e-3)])
def test_the_penalty_adapts_to_its_target(target, expected):
    agent = make(ProMPConfig(**SMALL, kl_penalty=1e-3, target_kl=target))
    assert agent.update(trial_of(agent), seeded())["train/kl_penalty_0"] == expected
    other = make(ProMPConfig(**SMALL, kl_penalty=1e-3, target_kl=target))
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    trial = trial_of(agent)
    assert agent.update(trial, seeded()) == other.update(trial, seeded())


def test_plain_is_one_step_of_adam():
    agent = make(PlainMAMLConfig(**SMALL, outer_lr=1e-3))
    before = flat(parameters(agent)).detach().clone()
    agent.update(trial_of(agent), seeded())
    step = (flat(parameters(agent)).detach() - before).abs()
    assert step.max() <= 1.001e-3
    assert (step > 0.9e-3).float().mean() > 0.9


# --- acting and adapting -----------------------------------------------------------------------------------------


def test_learning_sees_the_policies_that_acted():
    agent = make(MAMLTRPOConfig(**TRPO, num_inner_steps=2))
    objective = MetaObjective(
        agent.adaptation, agent.policy, [agent._samples(block, NUM_TASKS) for block in trial_of(agent)], 0.0
    )
    with torch.no_grad():
        for state, samples in zip(objective.states(), objective.trial, strict=True):
            ratio, _ = scores(agent.policy, state, samples)
            torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-4, rtol=0)


def test_tasks_do_not_leak_and_the_state_is_left_as_it_was():
    agent = make(MAMLTRPOConfig(**TRPO))
    (first, _) = trial_of(agent)
    state = agent.prior(NUM_TASKS, 3)
    before = {name: value.clone() for name, value in state.params.items()}
    adapted = agent.adapt(state, first)
    assert all(torch.equal(value, before[name]) for name, value in state.params.items())
    changed = torch.zeros_like(first.reward)
    changed[:, :3] = torch.randn(first.reward[:, :3].shape, generator=seeded(5))  # the rows of the first task
    other = agent.adapt(state, replace(first, reward=first.reward + changed))
    for name, value in adapted.params.items():
        torch.testing.assert_close(other.params[name][1:], value[1:])
        assert not torch.allclose(other.params[name][0], value[0])
    assert adapted.num_steps == 1


def test_later_steps_have_their_own_rate():
    agent = make(MAMLTRPOConfig(**TRPO, inner_lr=0.1, later_inner_lr=0.05))
    (first, _) = trial_of(agent)
    start = agent.prior(NUM_TASKS, 3)
    steps = [agent.adapt(replace(start, num_steps=number), first).params["log_std"] for number in (0, 1, 2)]
    moved = [step - start.params["log_std"] for step in steps]
    torch.testing.assert_close(moved[1], moved[0] / 2)
    torch.testing.assert_close(moved[2], moved[1])


def test_the_curve_counts_inner_steps():
    agent = make(MAMLTRPOConfig(**TRPO))
    evaluation = evaluate(
        FAMILY, agent, agent_name="maml_trpo", split="test", num_tasks=5, num_points=3, generator=seeded()
    )
    assert (evaluation.measure.point, evaluation.measure.first) == ("step", 0)
    assert len(evaluation.points) == 3
    assert evaluation.total == evaluation.points[-1]


def test_progress_names_inner_steps():
    metrics = {"meta_train/return/step_0": -40.0, "meta_train/return/step_1": -12.0, "meta_train/return/total": -12.0}
    assert returns_text(metrics, measure_of(make(MAMLTRPOConfig(**TRPO)))) == "return -40 at step 0, -12 at 1"


def test_copies_of_a_task_are_refused():
    config = TrainConfig(num_iterations=1, num_tasks=2, copies=2)
    with pytest.raises(ValueError, match="copies is 2; must be 1, because MAML runs 3 episodes of a task in parallel"):
        Trainer(FAMILY, MAMLTRPOConfig(**TRPO), config, agent_name="maml_trpo", seed=0)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (MAMLTRPOConfig, {"num_rollouts": 0}, "num_rollouts is 0; must be at least 1"),
        (MAMLTRPOConfig, {"inner_lr": 0.0}, "inner_lr is 0.0; must be positive and finite"),
        (MAMLTRPOConfig, {"backtrack_ratio": 1.0}, "backtrack_ratio is 1.0; must be between 0 and 1"),
        (PlainMAMLConfig, {"outer_lr": 0.0}, "outer_lr is 0.0; must be positive and finite"),
        (ProMPConfig, {"kl_penalty": -1.0}, "kl_penalty is -1.0; must be zero or positive"),
        (
            ProMPConfig,
            {"kl_penalty": 0.0, "target_kl": 0.1},
            "target_kl is 0.1; kl_penalty, which adapts to it, must not be 0",
        ),
    ],
)
def test_a_wrong_setting_is_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_a_block_of_one_episode_trains():
    config = TrainConfig(num_iterations=1, num_tasks=2)
    trainer = Trainer(FAMILY, MAMLTRPOConfig(**{**TRPO, "num_rollouts": 1}), config, agent_name="maml_trpo", seed=0)
    metrics = trainer.iterate()
    returns = [metrics[f"meta_train/return/ep_{k}"] for k in (1, 2)]
    assert metrics["meta_train/return/total"] == pytest.approx(sum(returns), abs=1e-4)


def room(kind: type[MAMLConfig], **settings: Any) -> Trainer:
    """A room with two goals, which no policy that does not adapt can both reach."""
    return Trainer(
        TwoGoals(horizon=10),
        kind(hidden_sizes=(16,), num_rollouts=10, inner_lr=0.5, **settings),
        TrainConfig(num_iterations=40, num_tasks=12, num_points=2, eval_tasks=40),
        agent_name="maml_trpo",
        seed=0,
    )


class TwoGoals(PointNavigation):
    def sample(self, num_tasks: int, split: Any, generator: torch.Generator) -> Any:
        tasks = super().sample(num_tasks, split, generator)
        side = torch.randint(2, (num_tasks,), generator=generator) * 2 - 1
        return replace(tasks, goal=torch.stack([0.5 * side, torch.zeros(num_tasks)], 1))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (MAMLTRPOConfig, {}),
        (ProMPConfig, {"inner_objective": "log_likelihood", "kl_penalty": 0.0, "outer_lr": 5e-3}),
    ],
)
def test_probe_two_goals_cannot_be_reached_before_meta_training_and_can_after(kind, settings):
    trainer = room(kind, **settings)
    before = [score.mean for score in trainer.evaluate().points]
    for _ in range(trainer.config.num_iterations):
        trainer.iterate()
    after = [score.mean for score in trainer.evaluate().points]
    stay = -0.5 * 10  # the return of a point that does not move
    assert before[1] < 0.9 * stay
    assert after[1] > 0.65 * stay


def test_a_bandit_of_discrete_arms_is_adapted_to():
    family = BernoulliBandit(num_arms=5, num_pulls=10)
    config = MAMLTRPOConfig(hidden_sizes=(8,), num_rollouts=20, inner_lr=10.0, curvature_stride=1)
    agent = make(config, family, spread=0.0)
    metrics = agent.update(trial_of(agent, family, 10), seeded())
    assert metrics["train/accepted"] == 1
    assert "train/std" not in metrics
    settings = {"agent_name": "maml_trpo", "split": "test", "num_tasks": 200, "num_points": 2}
    before, after = evaluate(family, agent, **settings, generator=seeded()).points  # type: ignore[arg-type]
    assert before.mean == pytest.approx(0.5, abs=0.05)
    assert after.mean > 0.62


def test_step_sizes_can_be_learned():
    agent = make(ProMPConfig(**SMALL, learned_step_sizes=True))
    sizes = flat(agent.adaptation.step_sizes.parameters()).detach().clone()  # type: ignore[union-attr]
    agent.update(trial_of(agent), seeded())
    assert not torch.equal(sizes, flat(agent.adaptation.step_sizes.parameters()))  # type: ignore[union-attr]


def test_first_order_leaves_out_the_inner_steps_derivative():
    agents = [make(MAMLTRPOConfig(**TRPO, first_order=first_order)) for first_order in (True, False)]
    gradients = []
    for agent in agents:
        objective = objective_of(agent)
        gradients.append(flat(torch.autograd.grad(objective.loss(objective.states()), parameters(agent))))
    objective = objective_of(make(MAMLTRPOConfig(**TRPO)))
    adapted = [{name: value.detach().requires_grad_() for name, value in state.items()} for state in objective.states()]
    slopes = torch.autograd.grad(objective.loss(adapted), list(adapted[-1].values()))
    torch.testing.assert_close(gradients[0], flat(slope.sum(0) for slope in slopes))
    assert not torch.allclose(gradients[0], gradients[1])


def test_the_adaptation_is_that_of_the_few_shot_learners():
    agent = make(MAMLTRPOConfig(**TRPO))
    assert type(agent.adaptation) is GradientAdaptation
    assert isinstance(agent.adaptation.step_sizes, FixedStepSizes)
