"""Nets that are written for a task, against the same sums done one after another."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from metarl.fewshot.methods.film import FilmAdaptation, FilmConfig
from metarl.fewshot.methods.hypernetwork import HypernetworkConfig, WrittenLayersAdaptation
from metarl.nets.conv import ConvConfig, ConvNet
from metarl.records import Examples
from tests.metarl.fewshot.patterns import identity

CONFIG = ConvConfig(filters=3, num_blocks=1, normalisation="running")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_film_scales_and_shifts_what_the_normalisation_gives():
    embed = ConvNet(CONFIG, (1, 4, 4), fused=True, generator=seeded())
    encoder = ConvNet(replace(CONFIG, filters=2, output="mean"), (1, 4, 4), fused=True, generator=seeded())
    adaptation = FilmAdaptation(
        embed, encoder, image_shape=(1, 4, 4), code_size=2, hidden_size=5, generator=seeded()
    ).eval()
    block: Any = embed.blocks[0]
    block.norm.weight.data.uniform_(0.5, 2, generator=seeded())
    block.norm.bias.data.normal_(generator=seeded())
    x = torch.randn(1, 4, 1, 4, 4, generator=seeded(1))
    y = torch.tensor([[0, 1, 0, 1]])
    state = adaptation.adapt(adaptation.prior(1), Examples(x, y))
    film = adaptation.film(encoder(x[0]).mean(0)).view(1, 2, 3)
    torch.testing.assert_close(state.film[0], film)
    assert adaptation.adapted_parameters == film.numel()

    def features(images: torch.Tensor) -> torch.Tensor:
        scale, shift = (value.view(-1, 1, 1) for value in film[0])
        maps = block.norm(block.conv(images)) * (1 + scale) + shift
        return nn.functional.max_pool2d(maps.relu(), 2).flatten(1)

    means = torch.stack([features(x[0])[y[0] == way].mean(0) for way in (0, 1)])
    query = torch.randn(1, 3, 1, 4, 4, generator=seeded(2))
    weights = adaptation.head(means)
    expected = features(query[0]) @ weights[:, :-1].T + weights[:, -1]
    torch.testing.assert_close(adaptation.predict(state, query)[0], expected)


def test_layers_are_written_from_the_task_and_from_the_classes():
    adaptation = WrittenLayersAdaptation(identity(3), code_size=2, hidden_size=4, generator=seeded())
    x = torch.randn(1, 5, 3, generator=seeded(1))
    y = torch.tensor([[0, 1, 0, 1, 0]])
    state = adaptation.adapt(adaptation.prior(1), Examples(x, y))
    layer = adaptation.layer(adaptation.encode(x[0]).mean(0)).view(4, 4)

    def hidden(features: torch.Tensor) -> torch.Tensor:
        return (features @ layer[:, :3].T + layer[:, 3]).relu()

    weights = adaptation.head(hidden(torch.stack([x[0][y[0] == way].mean(0) for way in (0, 1)])))
    query = torch.randn(1, 6, 3, generator=seeded(2))
    expected = hidden(query[0]) @ weights[:, :-1].T + weights[:, -1]
    torch.testing.assert_close(adaptation.predict(state, query)[0], expected)


def test_layers_differ_between_tasks_of_the_same_classes():
    """A class whose examples are the same is given other weights where the rest of the task is another."""
    adaptation = WrittenLayersAdaptation(identity(3), code_size=2, hidden_size=4, generator=seeded())
    x = torch.randn(2, 2, 3, generator=seeded(1))
    x[1, 0] = x[0, 0]
    state = adaptation.adapt(adaptation.prior(2), Examples(x, torch.tensor([[0, 1], [0, 1]])))
    assert not torch.allclose(state.weights[0, 0], state.weights[1, 0])
    assert adaptation.adapted_parameters == state.layer[0].numel()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: FilmConfig(encoder_blocks=0), "encoder_blocks is 0; must be at least 1"),
        (lambda: HypernetworkConfig(code_size=0), "code_size is 0; must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()
