"""ProMP's and MAML's outer step: the meta-gradient through one policy-gradient step, beside torch.func and JAX.

The sizes and contenders in torch are those of experiments/benchmarks/outer_step.py: a half cheetah's observations and
actions, a 64-64 tanh policy, random samples.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.func import functional_call, grad, vmap

from agents.meta_objective import Samples
from experiments.benchmarks.outer_step import INNER_LR, OuterStepSize, loop, ours, problem
from experiments.benchmarks.update_peers.contest import (
    Work,
    add_compiled,
    arrays_of,
    as_array,
    check_agreement,
    compiled,
    has_jax,
    jax_perceptron,
)
from metarl.nets.mlp import PolicyHead

TOLERANCE = 1e-3  # of gradients, relative to their norm


def contenders(size: OuterStepSize) -> dict[str, Work]:
    """Ours, and the peers that are installed, after a check that they agree."""
    policy, trial = problem(size)
    found: dict[str, Work] = {"ours": ours(policy, trial, "batched"), "eager": loop(policy, trial)}
    add_compiled(found, _compiled(policy, trial))
    if has_jax():
        found["jax"] = _jax(policy, trial)
    check_agreement(found, TOLERANCE)
    return found


def _compiled(policy: PolicyHead, trial: list[Samples]) -> Work:
    before, after = trial
    params = {name: value.detach() for name, value in policy.named_parameters()}

    def surrogate(params: Any, obs: Tensor, action: Tensor, log_prob: Tensor, advantage: Tensor) -> Tensor:
        ratio = (functional_call(policy, params, (obs,)).log_prob(action) - log_prob).exp()
        return -(ratio * advantage).sum()

    def adapted(params: Any, early: Any, late: Any) -> Tensor:
        slopes = grad(surrogate)(params, *early)
        return surrogate({name: value - INNER_LR * slopes[name] for name, value in params.items()}, *late)

    def meta_gradient(params: Any) -> Any:
        return grad(lambda own: vmap(adapted, in_dims=(None, 0, 0))(own, _parts(before), _parts(after)).mean())(params)

    fast = compiled(meta_gradient)
    return lambda: list(fast(params).values())


def _parts(samples: Samples) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return samples.obs, samples.action, samples.log_prob, samples.advantage


def _jax(policy: PolicyHead, trial: list[Samples]) -> Work:
    import jax
    import jax.numpy as jnp

    names = [name for name, _ in policy.named_parameters()]
    params = dict(zip(names, arrays_of(policy), strict=True))
    early, late = (tuple(jnp.asarray(as_array(value)) for value in _parts(samples)) for samples in trial)

    def surrogate(params: Any, obs: Any, action: Any, log_prob: Any, advantage: Any) -> Any:
        mean = jax_perceptron([params[name] for name in names if name != "log_std"], obs, jnp.tanh)
        log_std = params["log_std"]
        scaled = (action - mean) * jnp.exp(-log_std)
        now = (-0.5 * scaled**2 - log_std - 0.5 * jnp.log(2 * jnp.pi)).sum(-1)
        return -(jnp.exp(now - log_prob) * advantage).sum()

    def adapted(params: Any, early: Any, late: Any) -> Any:
        slopes = jax.grad(surrogate)(params, *early)
        params = {name: value - INNER_LR * slopes[name] for name, value in params.items()}
        return surrogate(params, *late)

    def mean_loss(params: Any) -> Any:
        return jax.vmap(adapted, in_axes=(None, 0, 0))(params, early, late).mean()

    meta_gradient = jax.jit(jax.grad(mean_loss))

    def work() -> list[Any]:
        gradient = jax.block_until_ready(meta_gradient(params))
        return [gradient[name] for name in names]

    return work
