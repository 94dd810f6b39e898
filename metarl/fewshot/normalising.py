"""What learners do about nets whose outputs rest on statistics: say so, give them a context, keep running ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import nn

from metarl.fewshot.episode import FewShotEpisode
from metarl.nets.conv import ConvConfig
from metarl.nets.norm import Norm, Normalisation
from metarl.records import Examples


def _norms(net: nn.Module) -> list[Norm]:
    return [module for module in net.modules() if isinstance(module, Norm)]


def normalisation_facts(net: nn.Module) -> dict[str, Any]:
    """The normalisation of a net's layers, to be stated with its scores; nothing where no layer normalises."""
    modes = dict.fromkeys(norm.mode for norm in _norms(net))
    return {"normalisation": " and ".join(modes)} if modes else {}


def with_context(net: nn.Module, episode: FewShotEpisode) -> tuple[Examples, Examples]:
    """Support and query; the query with the support as its context, where the net takes one."""
    if not any(norm.takes_context for norm in _norms(net)):
        return episode.support, episode.query
    return episode.support, replace(episode.query, context=episode.support.x)


def check_context(conv: ConvConfig, name: str) -> None:
    """Refuse statistics of the support where queries are embedded without it; `name` is the learner's.

    Raises:
        ValueError: naming what is allowed.
    """
    if conv.normalisation == "tasknorm":
        allowed = ", ".join(repr(mode) for mode in get_args(Normalisation) if mode != conv.normalisation)
        raise ValueError(
            f"normalisation is 'tasknorm', and {name} embeds queries without the support; allowed are {allowed}"
        )


@torch.no_grad()
def absorb_statistics(net: nn.Module, episode: FewShotEpisode) -> None:
    """Move running statistics towards those of an episode's images; nothing where a net keeps none.

    They are those of the meta-learned parameters: within a functional call for many tasks nothing can be written.
    """
    norms = [norm for norm in _norms(net) if norm.keeps_statistics]
    if not norms:
        return
    for norm in norms:
        norm.recording = True
    try:
        for data in (episode.support, episode.query):
            net(data.x.flatten(0, 1))
    finally:
        for norm in norms:
            norm.recording = False


@contextmanager
def in_evaluation(net: nn.Module) -> Iterator[None]:
    """The net as it is at meta-test: running statistics are used, and not moved."""
    before = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(before)
