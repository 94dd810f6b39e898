"""A plain PEARL update for comparison: one net at a time, and loops over tasks.

Rakelly et al. (2019), as published: two critics, a value net and its target copy, fixed temperature. Each task has its
own data arrays, posterior and sample; the latent is sampled once at inference and once for learning; and each part has
its own optimiser.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from agents.pearl import PEARLConfig

Arrays = dict[str, NDArray[np.float32]]


def perceptron(num_inputs: int, hidden_sizes: tuple[int, ...], num_outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden_sizes:
        layers += [nn.Linear(num_inputs, size), nn.ReLU()]
        num_inputs = size
    return nn.Sequential(*layers, nn.Linear(num_inputs, num_outputs))


class Reference:
    """The nets, the tasks' data and one gradient step on them."""

    def __init__(self, config: PEARLConfig, obs_size: int, num_actions: int, num_items: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.config, self.rng = config, rng
        shapes = {"obs": (obs_size,), "action": (num_actions,), "reward": (1,), "next_obs": (obs_size,), "end": (1,)}
        self.tasks: list[Arrays] = [
            {name: rng.standard_normal((num_items, *shape), np.float32) for name, shape in shapes.items()}
            for _ in range(config.num_train_tasks)
        ]
        for task in self.tasks:
            task["action"] = np.tanh(task["action"])
            task["end"][:] = 0
        latent, sizes = config.latent_size, config.hidden_sizes
        self.encoder = perceptron(obs_size + num_actions + 1, config.encoder_sizes, 2 * latent)
        self.critics = [perceptron(obs_size + num_actions + latent, sizes, 1) for _ in range(2)]
        self.value = perceptron(obs_size + latent, sizes, 1)
        self.slow_value = perceptron(obs_size + latent, sizes, 1)
        self.policy = perceptron(obs_size + latent, sizes, 2 * num_actions)
        parts = [self.encoder, *self.critics, self.value, self.policy]
        self.optimizers = [torch.optim.Adam(part.parameters(), lr=config.learning_rate) for part in parts]

    def draw(self, tasks: list[int], num_items: int) -> dict[str, Tensor]:
        """Transitions of each task, task by task: [M, num_items, ...]."""
        batches = []
        for task in tasks:
            picks = self.rng.integers(len(self.tasks[task]["obs"]), size=num_items)
            batches.append({name: values[picks] for name, values in self.tasks[task].items()})
        return {name: torch.from_numpy(np.stack([batch[name] for batch in batches])) for name in batches[0]}

    def posteriors(self, context: dict[str, Tensor]) -> list[Normal]:
        """The product of the Gaussian factors of each task's context."""
        items = torch.cat([context["obs"], context["action"], context["reward"]], -1)
        mean, raw = self.encoder(items).chunk(2, -1)
        variance = nn.functional.softplus(raw).clamp(min=1e-7)
        products = []
        for task in range(len(items)):
            precision = (1 / variance[task]).sum(0)
            products.append(Normal((mean[task] / variance[task]).sum(0) / precision, precision.rsqrt()))
        return products

    def act(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, log_std = self.policy(features).chunk(2, -1)
        log_std = log_std.clamp(-20, 2)
        raw = Normal(mean, log_std.exp()).rsample()
        action = raw.tanh()
        log_prob = Normal(mean, log_std.exp()).log_prob(raw) - (1 - action.square() + 1e-6).log()
        return action, log_prob.sum(-1, keepdim=True), mean, log_std

    @torch.no_grad()
    def collect(self, env: gymnasium.Env[Any, Any], horizon: int) -> int:
        """An episode of one environment, with observations and actions copied between numpy and batches of one."""
        obs, _ = env.reset(seed=0)
        latent = torch.randn(1, self.config.latent_size)
        kept = []
        for _ in range(horizon):
            features = torch.cat([torch.from_numpy(obs).float().unsqueeze(0), latent], -1)
            action = self.act(features)[0].squeeze(0).numpy()
            next_obs, reward, terminated, truncated, _ = env.step(action)
            kept.append((obs, action, reward, next_obs, terminated))
            obs = env.reset()[0] if terminated or truncated else next_obs
        return len(kept)

    def gradient_step(self) -> None:
        """One step of every part on a random meta-batch."""
        config = self.config
        tasks = self.rng.integers(len(self.tasks), size=config.meta_batch).tolist()
        posteriors = self.posteriors(self.draw(tasks, config.context))
        [posterior.rsample() for posterior in posteriors]  # sampled at inference, and again for learning
        latent = torch.cat([p.rsample().repeat(config.batch, 1) for p in posteriors])
        data = {name: values.flatten(0, 1) for name, values in self.draw(tasks, config.batch).items()}
        features, known = torch.cat([data["obs"], latent], -1), torch.cat([data["obs"], latent.detach()], -1)
        pairs = torch.cat([data["obs"], latent, data["action"]], -1)
        values = [critic(pairs) for critic in self.critics]
        with torch.no_grad():
            following = self.slow_value(torch.cat([data["next_obs"], latent], -1))
            target = config.reward_scale * data["reward"] + config.gamma * (1 - data["end"]) * following
        action, log_prob, mean, log_std = self.act(features.detach())
        for optimizer in self.optimizers[:3]:
            optimizer.zero_grad()
        prior = Normal(torch.zeros(config.latent_size), torch.ones(config.latent_size))
        divergence = torch.stack([kl_divergence(posterior, prior).sum() for posterior in posteriors]).sum()
        (config.kl_weight / config.meta_batch * divergence).backward(retain_graph=True)
        sum((value - target).square().mean() for value in values).backward()  # type: ignore[union-attr]
        for optimizer in self.optimizers[:3]:
            optimizer.step()
        judged = [critic(torch.cat([known, action], -1)) for critic in self.critics]
        least = torch.minimum(*judged)
        value_loss = (self.value(known) - (least - log_prob).detach()).square().mean()
        self.optimizers[3].zero_grad()
        value_loss.backward()
        self.optimizers[3].step()
        with torch.no_grad():
            for slow, fast in zip(self.slow_value.parameters(), self.value.parameters(), strict=True):
                slow.mul_(1 - config.tau).add_(config.tau * fast)
        size = mean.square().mean() + log_std.square().mean()
        policy_loss = (log_prob - least).mean() + config.regularisation * size
        self.optimizers[4].zero_grad()
        policy_loss.backward()
        self.optimizers[4].step()
        if not math.isfinite(policy_loss.item()):
            raise FloatingPointError("the reference's policy loss is not finite")
