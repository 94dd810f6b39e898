"""Normalisation and convolutional nets: whose statistics, right second derivatives, and no leak between tasks."""

from typing import Any, get_args

import pytest
import torch
from torch import nn

from metarl.adaptation.gradient import GradientAdaptation, supervised_loss
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.normalising import absorb_statistics, in_evaluation, normalisation_facts, with_context
from metarl.fewshot.problem import cross_entropies
from metarl.nets.conv import ConvConfig, ConvNet, ImageClassifier
from metarl.nets.norm import Norm, Normalisation
from metarl.records import Examples

MODES = get_args(Normalisation)
modes = pytest.mark.parametrize("mode", MODES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def config(mode: Any = "transductive", **settings: Any) -> ConvConfig:
    return ConvConfig(**{"filters": 3, "num_blocks": 2, "normalisation": mode, **settings})


def episode() -> FewShotEpisode:
    y = torch.tensor([[0, 1], [1, 0], [0, 1]])
    return FewShotEpisode(Examples(images(3, 2, 1, 8, 8), y), Examples(images(3, 2, 1, 8, 8, seed=1), y))


def test_values_equal_torchs_layers():
    x = images(4, 3, 5, 5).float()
    pairs = {
        "transductive": nn.BatchNorm2d(3, track_running_stats=False),
        "running": nn.BatchNorm2d(3),
        "instance": nn.InstanceNorm2d(3),
        "layer": nn.GroupNorm(1, 3),
        "none": nn.Identity(),
    }
    for mode, theirs in pairs.items():
        torch.testing.assert_close(Norm(3, mode)(x), theirs(x))  # type: ignore[arg-type]


def test_running_averages_are_torchs_and_move_only_where_they_are_recorded():
    ours, theirs, x = Norm(3, "running"), nn.BatchNorm2d(3), images(4, 3, 5, 5).float()
    ours(x)
    assert torch.equal(ours.running_mean, torch.zeros(3))
    ours.recording = True
    for seed in range(3):
        x = 2 * images(4, 3, 5, 5, seed=seed).float() + 1
        ours(x)
        theirs(x)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(dict(ours.named_buffers())["running_var"], theirs.running_var)


def test_tasknorm_pools_the_supports_moments_with_the_images_own():
    """One channel, by hand: support [0, 2] and an image [4, 8], half and half."""
    norm = Norm(1, "tasknorm").double()
    support, image = (torch.tensor(values).double().view(1, 1, 1, 2) for values in ([0.0, 2.0], [4.0, 8.0]))
    # support: mean 1, variance 1; image: mean 6, variance 4; pooled mean 3.5, variance (1 + 6.25 + 4 + 6.25) / 2
    expected = (image - 3.5) / (8.75 + 1e-5) ** 0.5
    torch.testing.assert_close(norm(torch.cat([support, image]), num_context=1)[1:], expected)
    norm.offset.data += 100  # the support alone
    torch.testing.assert_close(norm(torch.cat([support, image]), num_context=1)[1:], (image - 1) / (1 + 1e-5) ** 0.5)


@modes
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_meta_gradients_equal_finite_differences(mode, batching):
    net = ImageClassifier(config(mode, downsampling="stride"), (1, 8, 8), 2, generator=seeded()).double()
    settings = {"num_steps": 2, "batching": batching}
    adaptation = GradientAdaptation(net, supervised_loss(net, cross_entropies), FixedStepSizes(0.3), **settings)
    support, query = with_context(net, episode())

    def loss() -> torch.Tensor:
        state = adaptation.adapt(adaptation.prior(3), support)
        return adaptation.losses(state, query).mean()

    parameters = list(net.parameters())
    gradient = torch.autograd.grad(loss(), parameters)
    direction = [torch.randn(p.shape, generator=seeded(3), dtype=p.dtype) for p in parameters]
    values = []
    for side in (1e-7, -2e-7):
        for p, d in zip(parameters, direction, strict=True):
            p.data += side * d
        values.append(loss().item())
    along = sum((g * d).sum().item() for g, d in zip(gradient, direction, strict=True))
    assert along == pytest.approx((values[0] - values[1]) / 2e-7, rel=1e-3)


@modes
@pytest.mark.parametrize("fused", [False, True])
def test_each_task_is_normalised_by_itself(mode, fused):
    net = ConvNet(config(mode), (1, 8, 8), fused=fused, generator=seeded()).double()
    tasks, context = images(3, 4, 1, 8, 8), images(3, 5, 1, 8, 8, seed=1)
    together = net(tasks, context)
    assert together.shape == (3, 4, net.output_size)
    for task in range(3):
        torch.testing.assert_close(net(tasks[task], context[task]), together[task])


@modes
def test_fused_kernels_mean_the_same(mode):
    plain, fused = (ConvNet(config(mode), (1, 8, 8), fused=f, generator=seeded()).double() for f in (False, True))
    x = images(5, 1, 8, 8)
    torch.testing.assert_close(plain(x), fused(x))
    with in_evaluation(plain):
        assert not plain.training
        torch.testing.assert_close(plain(x)[:2], plain(x)[:2])
    assert plain.training


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (5, 3 * 7 * 7)),
        ({"downsampling": "stride"}, (5, 3 * 7 * 7)),
        ({"output": "mean"}, (5, 3)),
        ({"output": "maps", "num_downsampled": 1}, (5, 3, 14, 14)),
        ({"num_blocks": 4}, (5, 3)),
        ({"num_blocks": 4, "downsampling": "stride"}, (5, 3 * 2 * 2)),
    ],
)
def test_shapes_of_features(settings, shape):
    net = ConvNet(config(**settings), (1, 28, 28), generator=seeded())
    features = net(images(5, 1, 28, 28).float())
    assert features.shape == shape
    assert net.output_size == features[0].numel()
    assert net.map_shape[1:] == shape[2:] or features.ndim == 2


def test_half_precision_is_close_and_comes_back_as_float32():
    nets = [ConvNet(config(precision=p), (1, 28, 28), fused=True, generator=seeded()) for p in ("float32", "bfloat16")]
    full, half = (net(images(6, 1, 28, 28).float()) for net in nets)
    assert half.dtype == torch.float32
    assert (full - half).abs().max() > 0
    torch.testing.assert_close(full, half, atol=0.1, rtol=0.1)


def test_running_statistics_are_those_of_training_images_at_meta_test():
    net = ImageClassifier(config("running"), (1, 8, 8), 2, generator=seeded()).double()
    for _ in range(80):
        absorb_statistics(net, episode())
    with in_evaluation(net):
        one, many = net(episode().query.x[0, :1]), net(episode().query.x[0])
        torch.testing.assert_close(one, many[:1])  # whatever the other queries
    assert normalisation_facts(net) == {"normalisation": "running"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvConfig(filters=0), "filters is 0; must be at least 1"),
        (lambda: ConvConfig(num_downsampled=5), "num_downsampled is 5; must be from 0 to num_blocks, 4"),
        (lambda: Norm(3, "batch"), "normalisation is 'batch'; must be one of transductive, running,"),  # type: ignore
        (lambda: ConvNet(ConvConfig(), (1, 8, 8), generator=seeded()), "images of 8 x 8 are too small for 4 halvings"),
        (lambda: ImageClassifier(config(output="maps"), (1, 8, 8), 2, generator=seeded()), "output is 'maps'"),
    ],
)
def test_a_wrong_setting_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
