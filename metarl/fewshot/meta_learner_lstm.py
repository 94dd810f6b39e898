"""The meta-learner LSTM: an optimizer whose cell state is the net, and that learns where the net begins.

Ravi, Larochelle. Optimization as a model for few-shot learning (2017).

Deviations: 1. several tasks an update; 2. gates begin at a learning rate and a share that is kept, which are settings;
3. normalisation is the net's own setting: transductive, where the paper keeps running statistics within an episode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarl.adaptation.learned_updates import MetaLearnerLSTM
from metarl.fewshot.learned_optimizer import RuleConfig


@dataclass(frozen=True)
class MetaLearnerLSTMConfig(RuleConfig):
    """Meta-learner LSTM: for each number of the net, learned gates on it and on its gradient."""

    max_grad_norm: float | None = 0.25
    inner_lr: float = 0.01  # the input gate before any training
    keep: float = 0.995  # the forget gate before any training

    def make_rule(self, generator: torch.Generator) -> MetaLearnerLSTM:
        return MetaLearnerLSTM(self.hidden_size, self.inner_lr, self.keep, generator=generator)
