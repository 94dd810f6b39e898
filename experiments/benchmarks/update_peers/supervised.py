"""Updates of few-shot learners: MAML on sinusoids and on images, and a prototypical network.

The meta-gradient of a batch of tasks, by our learners (on sinusoids also as they compile it), by torch.func as a modern
program has it (vmap over tasks of the gradient through a gradient), by the same compiled, and by JAX. The optimiser's
step is left out. Images are float32 of Omniglot's size, 5 ways, 1 shot, normalised by each task's own statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from experiments.benchmarks.update_peers.contest import (
    Work,
    add_compiled,
    arrays_of,
    as_array,
    check_agreement,
    compiled,
    has_compiler,
    has_jax,
    jax_perceptron,
)
from metarl.adaptation.gradient import GradientAdaptation, supervised_loss
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.fewshot.compiled import CompiledObjective
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.methods.prototypical import PrototypeAdaptation
from metarl.fewshot.problem import cross_entropies, squared_errors
from metarl.fewshot.regression import Sinusoid
from metarl.nets.conv import ConvConfig, ConvNet, ImageClassifier
from metarl.nets.mlp import mlp
from metarl.records import Examples

TOLERANCE = 5e-3  # of gradients, relative to their norm; statistics over five images magnify rounding
IMAGE_SHAPE, WAYS, QUERIES = (1, 28, 28), 5, 5
CONV = ConvConfig(downsampling="stride", output="mean")
Loss = Callable[[Any, Any, Any], Any]  # of parameters, inputs and targets of one task


def sinusoid(num_steps: int, num_tasks: int) -> dict[str, Work]:
    """MAML on sinusoids with the paper's net: the inner loop has `num_steps` steps."""
    generator = torch.Generator().manual_seed(0)
    net = mlp((1, 40, 40, 1), activation="relu", output_gain=1.0, generator=generator)
    episode = Sinusoid().episode(num_tasks, "train", generator=generator)
    adaptation = GradientAdaptation(
        net, supervised_loss(net, squared_errors), FixedStepSizes(0.01), num_steps=num_steps
    )

    def loss(params: Any, x: Tensor, y: Tensor) -> Tensor:
        return squared_errors(functional_call(net, params, (x,)), y).mean()

    def jax_loss(params: Any, x: Any, y: Any) -> Any:
        import jax

        return ((jax_perceptron(params, x, jax.nn.relu) - y) ** 2).mean()

    found = _found(_ours(adaptation, net, episode), loss, jax_loss, net, episode, 0.01, num_steps)
    if has_compiler():
        found["ours_compiled"] = _ours_compiled(adaptation, net, episode)
    check_agreement(found, TOLERANCE)
    return found


def image_maml(num_tasks: int) -> dict[str, Work]:
    """MAML on images: one inner step."""
    generator = torch.Generator().manual_seed(0)
    net, episode = ImageClassifier(CONV, IMAGE_SHAPE, WAYS, generator=generator), images(num_tasks, generator)
    loss_of_tasks = supervised_loss(net, cross_entropies)
    adaptation = GradientAdaptation(net, loss_of_tasks, FixedStepSizes(0.4), batching="vmap")

    def loss(params: Any, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropies(functional_call(net, params, (x,)), y).mean()

    def jax_loss(params: Any, x: Any, y: Any) -> Any:
        *body, weight, bias = params
        return _jax_cross_entropies(_jax_features(body, x) @ weight.T + bias, y).mean()

    found = _found(_ours(adaptation, net, episode), loss, jax_loss, net, episode, 0.4, 1)
    check_agreement(found, TOLERANCE)
    return found


def prototypical(num_tasks: int) -> dict[str, Work]:
    """The gradient of a prototypical network's loss."""
    generator = torch.Generator().manual_seed(0)
    embed, episode = ConvNet(CONV, IMAGE_SHAPE, fused=True, generator=generator), images(num_tasks, generator)
    adaptation = PrototypeAdaptation(embed)
    support, query = episode.support, episode.query

    def ours() -> list[Tensor]:
        prediction = adaptation.predict(adaptation.adapt(adaptation.prior(num_tasks), support), query.x)
        return list(torch.autograd.grad(cross_entropies(prediction, query.y).mean(), list(embed.parameters())))

    def plain_loss() -> Tensor:
        total = torch.zeros(())
        for task in range(num_tasks):
            known, asked = (_plain_features(embed, images) for images in (support.x[task], query.x[task]))
            prototypes = torch.stack([known[support.y[task] == label].mean(0) for label in range(WAYS)])
            logits = -torch.cdist(asked, prototypes).square()
            total = total + nn.functional.cross_entropy(logits, query.y[task]) / num_tasks
        return total

    def plain(loss: Callable[[], Tensor]) -> Work:
        return lambda: torch.autograd.grad(loss(), list(embed.parameters()))

    found: dict[str, Work] = {"ours": ours, "eager": plain(plain_loss)}
    add_compiled(found, plain(compiled(plain_loss)))
    if has_jax():
        found["jax"] = _jax_prototypical(embed, episode)
    check_agreement(found, TOLERANCE)
    return found


def images(num_tasks: int, generator: torch.Generator) -> FewShotEpisode:
    """Random images: a support set of one per class and some queries."""

    def examples(number: int) -> Examples:
        x = torch.rand(num_tasks, number * WAYS, *IMAGE_SHAPE, generator=generator)
        return Examples(x, torch.arange(WAYS).repeat(num_tasks, number))

    return FewShotEpisode(examples(1), examples(QUERIES))


def _ours(adaptation: GradientAdaptation, net: nn.Module, episode: FewShotEpisode) -> Work:
    def work() -> list[Tensor]:
        state = adaptation.adapt(adaptation.prior(len(episode)), episode.support)
        return list(torch.autograd.grad(adaptation.losses(state, episode.query).mean(), list(net.parameters())))

    return work


def _ours_compiled(adaptation: GradientAdaptation, net: nn.Module, episode: FewShotEpisode) -> Work:
    def objective(support: Examples, query: Examples) -> tuple[Tensor, Tensor]:
        losses = adaptation.losses(adaptation.adapt(adaptation.prior(len(support)), support), query)
        return losses.mean(), losses

    compiled_objective = CompiledObjective(adaptation, objective)

    def work() -> list[Tensor]:
        loss, _ = compiled_objective(episode.support, episode.query)
        return list(torch.autograd.grad(loss, list(net.parameters())))

    return work


def _found(
    ours: Work,
    loss: Loss,
    jax_loss: Loss,
    net: nn.Module,
    episode: FewShotEpisode,
    inner_lr: float,
    num_steps: int,
) -> dict[str, Work]:
    """Ours and the installed peers of a meta-gradient."""
    data = (episode.support.x, episode.support.y, episode.query.x, episode.query.y)
    params = {name: value.detach() for name, value in net.named_parameters()}

    def adapted_loss(params: Any, x: Tensor, y: Tensor, query: Tensor, answer: Tensor) -> Tensor:
        for _ in range(num_steps):
            slopes = grad(loss)(params, x, y)
            params = {name: value - inner_lr * slopes[name] for name, value in params.items()}
        return loss(params, query, answer)

    def meta_gradient(params: Any) -> Any:
        return grad(lambda own: vmap(adapted_loss, in_dims=(None, 0, 0, 0, 0))(own, *data).mean())(params)

    found: dict[str, Work] = {"ours": ours, "eager": lambda: list(meta_gradient(params).values())}
    fast = compiled(meta_gradient)
    add_compiled(found, lambda: list(fast(params).values()))
    if has_jax():
        found["jax"] = _jax(jax_loss, net, episode, inner_lr, num_steps)
    return found


def _plain_features(embed: ConvNet, x: Tensor) -> Tensor:
    """The same net as a plain program computes it: convolution, batch normalisation, relu, and the mean over pixels."""
    for block in embed.blocks:
        conv: Any = block.conv
        norm: Any = block.norm
        x = nn.functional.batch_norm(conv(x), None, None, norm.weight, norm.bias, training=True).relu()
    return x.mean((-2, -1))


# --- JAX ------------------------------------------------------------------------------------------------------------


def _jax(loss: Loss, net: nn.Module, episode: FewShotEpisode, inner_lr: float, num_steps: int) -> Work:
    import jax
    import jax.numpy as jnp

    support, query = episode.support, episode.query
    data = [jnp.asarray(as_array(value)) for value in (support.x, support.y, query.x, query.y)]
    params = arrays_of(net)

    def adapted_loss(params: Any, x: Any, y: Any, query: Any, answer: Any) -> Any:
        for _ in range(num_steps):
            slopes = jax.grad(loss)(params, x, y)
            params = [value - inner_lr * slope for value, slope in zip(params, slopes, strict=True)]
        return loss(params, query, answer)

    def mean_loss(params: Any) -> Any:
        return jax.vmap(adapted_loss, in_axes=(None, 0, 0, 0, 0))(params, *data).mean()

    meta_gradient = jax.jit(jax.grad(mean_loss))
    return lambda: jax.block_until_ready(meta_gradient(params))


def _jax_prototypical(embed: ConvNet, episode: FewShotEpisode) -> Work:
    import jax
    import jax.numpy as jnp

    support, query = episode.support, episode.query
    data = [jnp.asarray(as_array(value)) for value in (support.x, support.y, query.x, query.y)]
    params = arrays_of(embed)

    def task_loss(params: Any, x: Any, y: Any, query: Any, answer: Any) -> Any:
        known, asked = _jax_features(params, x), _jax_features(params, query)
        member = jax.nn.one_hot(y, WAYS).T
        prototypes = member @ known / member.sum(-1, keepdims=True)
        return _jax_cross_entropies(-((asked[:, None] - prototypes) ** 2).sum(-1), answer).mean()

    def mean_loss(params: Any) -> Any:
        return jax.vmap(task_loss, in_axes=(None, 0, 0, 0, 0))(params, *data).mean()

    gradient = jax.jit(jax.grad(mean_loss))
    return lambda: jax.block_until_ready(gradient(params))


def _jax_features(params: Any, x: Any) -> Any:
    """Four strided blocks and the mean over pixels; each block has the convolution's and the norm's weight and bias."""
    import jax

    for start in range(0, len(params), 4):
        weight, bias, scale, shift = params[start : start + 4]
        x = jax.lax.conv_general_dilated(x, weight, (2, 2), [(1, 1), (1, 1)]) + bias[:, None, None]
        mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        x = (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale[:, None, None] + shift[:, None, None]
        x = jax.nn.relu(x)
    return x.mean((-2, -1))


def _jax_cross_entropies(logits: Any, y: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1)[..., 0]
