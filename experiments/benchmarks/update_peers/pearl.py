"""PEARL's gradient step at the published sizes: beside a plain program, our losses compiled by torch, and JAX.

The plain program (experiments/benchmarks/pearl_reference.py) is the published variant, with a value net. JAX computes
our own step, with soft actor-critic's two target critics: critics and encoder, then the policy, then the averages. The
gradients of both losses are compared with ours for the same noise before anything is timed.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.pearl import PEARL, PEARLConfig
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments.benchmarks.pearl import same_agent, step
from experiments.benchmarks.pearl_reference import Reference
from experiments.benchmarks.update_peers.contest import (
    Work,
    add_compiled,
    arrays_of,
    as_array,
    check_agreement,
    compiled,
    has_jax,
    jax_adam,
    jax_adam_start,
    jax_perceptron,
)
from metarl.rl.replay import Replay, Transition

TOLERANCE = 1e-3  # of gradients, relative to their norm


def contenders(config: PEARLConfig) -> dict[str, Work]:
    """Ours, and the peers that are installed, after a check that their losses' gradients agree with ours."""
    family = HalfCheetahVel()
    obs_size, num_actions = family.observation_space.shape[0], family.action_space.shape[0]
    reference = Reference(config, obs_size, num_actions, config.capacity, seed=0)
    agent, replay = same_agent(config, family, reference)
    found: dict[str, Work] = {"ours": _ours(agent, replay), "eager": _nothing(reference.gradient_step)}
    fast = copy.deepcopy(agent)
    fast.critic_losses = compiled(fast.critic_losses)
    fast.sac.actor_loss = compiled(fast.sac.actor_loss)
    add_compiled(found, _ours(fast, replay))
    if has_jax():
        found["jax"] = _jax(agent, replay, reference)
    for work in found.values():
        work()
    return found


def _ours(agent: PEARL, replay: Replay) -> Work:
    generator = torch.Generator().manual_seed(0)
    return _nothing(lambda: step(agent, replay, generator))


def _nothing(work: Any) -> Work:
    """A gradient step as work whose outcome is not compared: the noise differs."""

    def call() -> list[Any]:
        work()
        return []

    return call


def _jax(agent: PEARL, replay: Replay, reference: Reference) -> Work:
    import jax
    import jax.numpy as jnp

    config, sac = agent.config, agent.sac
    relu, num_actions, latent_size = jax.nn.relu, sac.actor.num_actions, config.latent_size
    params = {
        "encoder": arrays_of(agent.encoder),
        "critics": arrays_of(sac.critics),
        "actor": arrays_of(sac.actor.net),
        "slow": arrays_of(sac.target_critics),
    }
    names = ("obs", "action", "reward", "next_obs", "end")
    stored = {name: jnp.asarray(np.stack([task[name] for task in reference.tasks])) for name in names}
    temperature, floor = float(sac.log_temperature.detach().exp()), 1e-7

    def drawn(key: Any, tasks: Any, number: int) -> Any:
        picks = jax.random.randint(key, (len(tasks), number), 0, config.capacity)
        return {name: values[tasks[:, None], picks] for name, values in stored.items()}

    def posterior(encoder: Any, context: Any) -> tuple[Any, Any]:
        items = jnp.concatenate([context["obs"], context["action"], context["reward"]], -1)
        mean, raw = jnp.split(jax_perceptron(encoder, items, relu), 2, -1)
        precision = 1 / jnp.maximum(jax.nn.softplus(raw), floor)
        total = precision.sum(1)
        return (mean * precision).sum(1) / total, 1 / total

    def values(critics: Any, features: Any, action: Any) -> Any:
        inputs = jnp.concatenate([features, action], -1)
        return jax.vmap(lambda critic: jax_perceptron(critic, inputs, relu)[..., 0])(critics)

    def acted(actor: Any, features: Any, noise: Any) -> Any:
        mean, log_std = jnp.split(jax_perceptron(actor, features, relu), 2, -1)
        log_std = jnp.clip(log_std, -20, 2)
        raw = mean + noise * jnp.exp(log_std)
        log_slope = 2 * (jnp.log(2.0) - raw - jax.nn.softplus(-2 * raw))
        log_prob = (-0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi) - log_slope).sum(-1)
        return jnp.tanh(raw), log_prob, mean, log_std

    def critic_loss(learned: Any, rest: Any, data: Any, context: Any, eps: Any, noise: Any) -> tuple[Any, Any]:
        mean, variance = posterior(learned["encoder"], context)
        latent = jnp.repeat(mean + eps * jnp.sqrt(variance), config.batch, 0)
        rows = {name: value.reshape(-1, value.shape[-1]) for name, value in data.items()}
        features = jnp.concatenate([rows["obs"], latent], -1)
        following = jnp.concatenate([rows["next_obs"], jax.lax.stop_gradient(latent)], -1)
        action, log_prob, _, _ = acted(rest["actor"], following, noise)
        soft = values(rest["slow"], following, action).min(0) - temperature * log_prob
        target = config.reward_scale * rows["reward"][:, 0] + config.gamma * (1 - rows["end"][:, 0]) * soft
        error = values(learned["critics"], features, rows["action"]) - jax.lax.stop_gradient(target)
        divergence = 0.5 * (variance + mean**2 - 1 - jnp.log(variance)).sum(-1).mean()
        return (error**2).mean(1).sum() + config.kl_weight * divergence, jax.lax.stop_gradient(features)

    def actor_loss(actor: Any, critics: Any, features: Any, noise: Any) -> Any:
        action, log_prob, mean, log_std = acted(actor, features, noise)
        size = (mean**2).mean() + (log_std**2).mean()
        value = values(critics, features, action).min(0)
        return (temperature * log_prob - value).mean() + config.regularisation * size

    _check(agent, replay, params, critic_loss, actor_loss)

    @jax.jit
    def gradient_step(params: Any, states: Any, key: Any) -> Any:
        keys = jax.random.split(key, 7)
        tasks = jax.random.randint(keys[0], (config.meta_batch,), 0, config.num_train_tasks)
        data, context = drawn(keys[1], tasks, config.batch), drawn(keys[2], tasks, config.context)
        eps = jax.random.normal(keys[3], (config.meta_batch, latent_size))
        shape = (config.meta_batch * config.batch, num_actions)
        learned = {name: params[name] for name in ("encoder", "critics")}
        slopes, features = jax.grad(critic_loss, has_aux=True)(
            learned, params, data, context, eps, jax.random.normal(keys[4], shape)
        )
        rate: Any = {"learning_rate": config.learning_rate, "epsilon": 1e-8, "max_norm": None}
        learned, first = jax_adam(learned, slopes, states[0], **rate)
        slopes = jax.grad(actor_loss)(params["actor"], learned["critics"], features, jax.random.normal(keys[5], shape))
        actor, second = jax_adam(params["actor"], slopes, states[1], **rate)
        slow = [a + config.tau * (b - a) for a, b in zip(params["slow"], learned["critics"], strict=True)]
        return {**learned, "actor": actor, "slow": slow}, (first, second), keys[6]

    learned = {name: params[name] for name in ("encoder", "critics")}
    state = [params, (jax_adam_start(learned), jax_adam_start(params["actor"])), jax.random.key(0)]

    def work() -> list[Any]:
        state[:] = gradient_step(*state)
        jax.block_until_ready(state[0])
        return []

    return work


def _check(agent: PEARL, replay: Replay, params: Any, critic_loss: Any, actor_loss: Any) -> None:
    """Check that the gradients of JAX's losses are ours, on the same data and noise.

    Raises:
        AssertionError: when they differ.
    """
    import jax
    import jax.numpy as jnp

    config, generator = agent.config, torch.Generator().manual_seed(3)
    tasks = torch.arange(config.meta_batch)
    data, context = (replay.sample(tasks, number, generator) for number in (config.batch, config.context))
    losses = agent.critic_losses(data, agent._infer(context), torch.Generator().manual_seed(4))
    ours = torch.autograd.grad(losses.loss, [*agent.encoder.parameters(), *agent.sac.critics.parameters()])
    loss, _ = agent.sac.actor_loss(losses.features, torch.Generator().manual_seed(5))
    of_actor = torch.autograd.grad(loss, list(agent.sac.actor.parameters()))
    noise, rows = torch.Generator().manual_seed(4), config.meta_batch * config.batch
    eps = torch.empty(config.meta_batch, config.latent_size).normal_(generator=noise)
    of_next = torch.empty(rows, agent.sac.actor.num_actions).normal_(generator=noise)
    of_now = torch.empty_like(of_next).normal_(generator=torch.Generator().manual_seed(5))
    learned = {name: params[name] for name in ("encoder", "critics")}
    arguments = (_as_jax(data), _as_jax(context), jnp.asarray(eps.numpy()), jnp.asarray(of_next.numpy()))
    slopes, features = jax.grad(critic_loss, has_aux=True)(learned, params, *arguments)
    actor_slopes = jax.grad(actor_loss)(params["actor"], params["critics"], features, jnp.asarray(of_now.numpy()))
    check_agreement({"ours": lambda: ours, "jax": lambda: [*slopes["encoder"], *slopes["critics"]]}, TOLERANCE)
    check_agreement({"ours": lambda: of_actor, "jax": lambda: actor_slopes}, TOLERANCE)


def _as_jax(data: Transition) -> dict[str, Any]:
    import jax.numpy as jnp

    parts: dict[str, Tensor] = {
        "obs": data.obs,
        "action": data.action,
        "reward": data.shaped_reward.unsqueeze(-1),
        "next_obs": data.next_obs,
        "end": data.terminated.float().unsqueeze(-1),
    }
    return {name: jnp.asarray(as_array(value)) for name, value in parts.items()}
