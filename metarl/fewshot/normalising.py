"""Handling of normalisation statistics in learners: reporting them, passing a context, updating running ones."""

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
from metarl.parallel import current
from metarl.records import Examples


def _norms(net: nn.Module) -> list[Norm]:
    return [module for module in net.modules() if isinstance(module, Norm)]


def normalisation_facts(net: nn.Module) -> dict[str, Any]:
    """The normalisation of a net's layers, to report with its scores; empty if no layer normalises."""
    modes = dict.fromkeys(norm.mode for norm in _norms(net))
    return {"normalisation": " and ".join(modes)} if modes else {}


def with_context(net: nn.Module, episode: FewShotEpisode) -> tuple[Examples, Examples]:
    """Support and query; the query has the support as its context if the net uses one."""
    if not any(norm.takes_context for norm in _norms(net)):
        return episode.support, episode.query
    return episode.support, replace(episode.query, context=episode.support.x)


def check_context(conv: ConvConfig, name: str) -> None:
    """Check that the normalisation does not need the support, for learners that embed queries without it.

    name: the learner's name, for the message.

    Raises:
        ValueError: names the allowed normalisations.
    """
    if conv.normalisation == "tasknorm":
        allowed = ", ".join(repr(mode) for mode in get_args(Normalisation) if mode != conv.normalisation)
        raise ValueError(
            f"normalisation is 'tasknorm'; must be one of {allowed}, because {name} embeds queries without the support"
        )


@torch.no_grad()
def absorb_statistics(net: nn.Module, episode: FewShotEpisode) -> None:
    """Move running statistics towards those of an episode's images; a no-op if the net keeps none.

    They are computed with the meta-learned parameters, because buffers cannot be updated within a batched functional
    call.
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


def absorb_shared_statistics(net: nn.Module) -> None:
    """Update the running averages of a net whose tasks several processes share; a no-op in one process."""
    share = current()
    if share is not None and share.count > 1:
        for norm in _norms(net):
            norm.absorb_pending(share)


@contextmanager
def in_evaluation(net: nn.Module) -> Iterator[None]:
    """A context in which the net is in evaluation mode: running statistics are used, not updated."""
    before = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(before)
