"""Augmentation of training tasks by their labels, so that a learner cannot memorise them and must read the support.

Rajendran, Irpan, Jang. Meta-learning requires meta-augmentation (2020).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from metarl.fewshot.episode import FewShotEpisode, num_ways


def with_permuted_labels(episode: FewShotEpisode, generator: torch.Generator) -> FewShotEpisode:
    """The episode with the classes of each task renumbered at random, alike in support and queries."""
    support, query = episode.support, episode.query
    rank = torch.rand(len(support.y), num_ways(episode), generator=generator, device=support.y.device)
    number = rank.argsort(1)  # [N, W]
    return replace(
        episode,
        support=replace(support, y=number.gather(1, support.y)),
        query=replace(query, y=number.gather(1, query.y)),
    )


def with_label_offset(episode: FewShotEpisode, std: float, generator: torch.Generator) -> FewShotEpisode:
    """The episode with one normal number per task and output added to all of its labels [N, K, out]."""
    support, query = episode.support, episode.query
    shape = (len(support.y), 1, support.y.shape[-1])
    offset = std * torch.randn(shape, generator=generator, device=support.y.device)
    return replace(episode, support=replace(support, y=support.y + offset), query=replace(query, y=query.y + offset))
