"""RL2's update: epochs of PPO on whole trials, by our agent, by plain torch with nn.GRU, and by JAX with lax.scan.

All start from the same weights, trajectories and minibatches, and compute advantages, losses, gradients and Adam's
steps. Without normalisation and early stop, whose cost is small and whose branches differ in their last bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.ppo import minibatches
from agents.rl2 import RL2, RL2Config
from experiments.benchmarks.update_peers.contest import (
    Work,
    add_compiled,
    arrays_of,
    check_agreement,
    compiled,
    has_jax,
    jax_adam,
    jax_adam_start,
    jax_perceptron,
)
from metarl.protocols import TaskFamily
from metarl.records import Trajectory
from metarl.rl.rollouts import collect

TOLERANCE = 0.05  # relative to the way that the parameters go: rounding grows over tens of steps of Adam


@dataclass(frozen=True)
class Batch:
    """What the peers start from: trials whose steps are all valid."""

    items: Tensor  # [T, B, item], of the memory
    obs: Tensor  # [T, B, O]
    action: Tensor  # [T, B] or [T, B, A], in policy units
    log_prob: Tensor  # [T, B]
    value: Tensor  # [T, B]
    reward: Tensor  # [T, B]
    minibatches: list[Tensor]  # rows of each gradient step


def contenders(family: TaskFamily, config: RL2Config, num_tasks: int, num_episodes: int) -> dict[str, Work]:
    """Ours, and the peers that are installed, after a check that they agree."""
    config = replace(config, target_kl=None, normalise_obs=False, normalise_reward=False)
    generator = torch.Generator().manual_seed(0)
    agent = config.make(family.observation_space, family.action_space, num_iterations=1, generator=generator)
    tasks = family.sample(num_tasks, "train", generator)
    trajectory = collect(family.make_env(num_tasks, generator), agent, tasks, num_episodes, generator=generator)
    batch = _batch(agent, trajectory)
    start = copy.deepcopy(agent.net)
    found: dict[str, Work] = {"ours": _ours(agent, trajectory, start), "eager": _eager(batch, config, start, None)}
    add_compiled(found, _eager(batch, config, start, compiled))
    if has_jax():
        found["jax"] = _jax(batch, config, start)
    check_agreement(found, TOLERANCE, start=list(start.parameters()))
    return found


def _batch(agent: RL2, trajectory: Trajectory[Any]) -> Batch:
    if not bool(trajectory.valid.all()):
        raise ValueError("the trials of this family end at different steps; the peers know only whole ones")
    inputs, generator = agent._inputs(trajectory), torch.Generator().manual_seed(1)
    decision = trajectory.decision
    epochs, count = agent.config.num_epochs, agent.config.num_minibatches
    rows = [rows for rows, _ in minibatches(trajectory.valid, epochs, count, generator)]
    action = agent.net.policy.from_env(decision.action)
    return Batch(inputs.items, inputs.obs, action, decision.log_prob, decision.value, trajectory.reward, rows)


def _ours(agent: RL2, trajectory: Trajectory[Any], start: nn.Module) -> Work:
    def work() -> list[Tensor]:
        agent.net.load_state_dict(start.state_dict())
        agent.ppo = type(agent.ppo)(agent.config, agent.net, 1)
        agent.update([trajectory], torch.Generator().manual_seed(1))
        return list(agent.net.parameters())

    return work


# --- plain torch ----------------------------------------------------------------------------------------------------


def _eager(
    batch: Batch, config: RL2Config, start: nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]] | None
) -> Work:
    net: Any = copy.deepcopy(start)
    gru, is_discrete = net.memory.memory.rnn, not batch.action.is_floating_point()

    def loss(rows: Tensor, advantage: Tensor, target: Tensor) -> Tensor:
        hidden = net.memory.memory.initial_hidden.expand(1, len(rows), -1).contiguous()
        features = torch.cat([gru(net.memory.encoder(batch.items[:, rows]), hidden)[0], batch.obs[:, rows]], -1)
        output, action = net.policy.net(features), batch.action[:, rows]
        if is_discrete:
            distribution: Any = torch.distributions.Categorical(logits=output, validate_args=False)
            log_prob, entropy = distribution.log_prob(action), distribution.entropy()
        else:
            distribution = torch.distributions.Normal(output, net.policy.log_std.exp(), validate_args=False)
            log_prob, entropy = distribution.log_prob(action).sum(-1), distribution.entropy().sum(-1)
        ratio, gain = (log_prob - batch.log_prob[:, rows]).exp(), advantage[:, rows]
        policy = -torch.min(ratio * gain, ratio.clamp(1 - config.clip, 1 + config.clip) * gain).mean()
        value = 0.5 * (net.critic(features).squeeze(-1) - target[:, rows]).square().mean()
        return policy + config.value_coefficient * value - config.entropy_coefficient * entropy.mean()

    loss = loss if wrap is None else wrap(loss)

    def work() -> list[Tensor]:
        net.load_state_dict(start.state_dict())
        optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate, eps=1e-5)
        advantage, running = torch.zeros_like(batch.reward), torch.zeros_like(batch.reward[0])
        following = torch.zeros_like(running)
        for t in reversed(range(len(batch.reward))):
            delta = batch.reward[t] + config.gamma * following - batch.value[t]
            running = delta + config.gamma * config.lam * running
            advantage[t], following = running, batch.value[t]
        target = advantage + batch.value
        advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
        for rows in batch.minibatches:
            optimizer.zero_grad()
            loss(rows, advantage, target).backward()
            nn.utils.clip_grad_norm_(net.parameters(), config.max_grad_norm)
            optimizer.step()
        return list(net.parameters())

    return work


# --- JAX ------------------------------------------------------------------------------------------------------------


def _jax(batch: Batch, config: RL2Config, start: nn.Module) -> Work:
    import jax
    import jax.numpy as jnp

    names = [name for name, _ in start.named_parameters()]
    params = dict(zip(names, arrays_of(start), strict=True))
    activation = {"tanh": jnp.tanh, "relu": jax.nn.relu, "silu": jax.nn.silu}[config.activation]
    is_discrete = not batch.action.is_floating_point()
    items, obs, action, log_prob, value, reward = (
        jnp.asarray(v.numpy())
        for v in (batch.items, batch.obs, batch.action, batch.log_prob, batch.value, batch.reward)
    )
    minibatches = jnp.asarray(np.stack([rows.numpy() for rows in batch.minibatches]))

    def part(own: Any, prefix: str) -> list[Any]:
        return [own[name] for name in names if name.startswith(prefix)]

    def memory(own: Any, x: Any) -> Any:
        start, w_in, w_rec, b_in, b_rec = part(own, "memory.memory.initial") + part(own, "memory.memory.rnn")
        size = len(start)
        layers = part(own, "memory.encoder")
        if layers:
            x = activation(jax_perceptron(layers, x, activation))

        def step(hidden: Any, of_inputs: Any) -> tuple[Any, Any]:
            recurrent = hidden @ w_rec.T + b_rec
            reset, update = jnp.split(jax.nn.sigmoid(of_inputs[:, : 2 * size] + recurrent[:, : 2 * size]), 2, -1)
            new = jnp.tanh(of_inputs[:, 2 * size :] + reset * recurrent[:, 2 * size :])
            hidden = new + update * (hidden - new)
            return hidden, hidden

        return jax.lax.scan(step, jnp.broadcast_to(start, (x.shape[1], size)), x @ w_in.T + b_in)[1]

    def loss(own: Any, rows: Any, advantage: Any, target: Any) -> Any:
        features = jnp.concatenate([memory(own, items[:, rows]), obs[:, rows]], -1)
        output, taken = jax_perceptron(part(own, "policy.net"), features, activation), action[:, rows]
        if is_discrete:
            logs = jax.nn.log_softmax(output)
            now = jnp.take_along_axis(logs, taken[..., None], -1)[..., 0]
            entropy = -jnp.sum(jnp.exp(logs) * logs, -1)
        else:
            log_std = own["policy.log_std"]
            scaled = (taken - output) * jnp.exp(-log_std)
            now = jnp.sum(-0.5 * scaled**2 - log_std - 0.5 * jnp.log(2 * jnp.pi), -1)
            entropy = jnp.sum(log_std + 0.5 + 0.5 * jnp.log(2 * jnp.pi))
        ratio, gain = jnp.exp(now - log_prob[:, rows]), advantage[:, rows]
        clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
        policy = -jnp.mean(jnp.minimum(ratio * gain, clipped * gain))
        error = jax_perceptron(part(own, "critic"), features, activation)[..., 0] - target[:, rows]
        of_value = 0.5 * jnp.mean(error**2)
        return policy + config.value_coefficient * of_value - config.entropy_coefficient * jnp.mean(entropy)

    @jax.jit
    def update(own: Any) -> Any:
        following = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
        deltas = reward + config.gamma * following - value

        def back(running: Any, delta: Any) -> tuple[Any, Any]:
            running = delta + config.gamma * config.lam * running
            return running, running

        advantage = jax.lax.scan(back, jnp.zeros_like(value[0]), deltas, reverse=True)[1]
        target = advantage + value
        advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)

        def step(carry: Any, rows: Any) -> tuple[Any, None]:
            own, state = carry
            gradient = jax.grad(loss)(own, rows, advantage, target)
            rate = {"learning_rate": config.learning_rate, "epsilon": 1e-5, "max_norm": config.max_grad_norm}
            return jax_adam(own, gradient, state, **rate), None

        # Minibatches of one size: the last ones of an epoch, which may be smaller by a row, would be compiled anew.
        return jax.lax.scan(step, (own, jax_adam_start(own)), minibatches)[0][0]

    def work() -> list[Any]:
        own = update(params)
        return [np.asarray(own[name]) for name in names]

    return work
