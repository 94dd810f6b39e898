"""ProMP: proximal meta-policy search, which learns an initialisation for policy-gradient steps.

Rothfuss, Lee, Clavera, Asfour, Abbeel. ProMP: proximal meta-policy search (2019).

The learner is that of agents/maml.py with three differences: the inner objective is the likelihood ratio, whose
second derivatives estimate those of the return with low variance; the outer objective is clipped and maximised by Adam
for several epochs; and a penalty keeps the policies before each inner step close to those that sampled their data.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from agents.maml import MAMLConfig
from agents.meta_objective import InnerObjective
from agents.outer_steps import GradientEpochs, OuterStep
from metarl.checks import not_negative, positive, rounds


@dataclass(frozen=True)
class ProMPConfig(MAMLConfig):
    """ProMP, with the settings of its authors' runs on MuJoCo."""

    inner_objective: InnerObjective = "likelihood_ratio"  # surrogate of the return maximised by the inner steps
    outer_lr: float = 1e-3  # learning rate of Adam
    num_epochs: int = 5  # number of outer steps on each batch
    clip: float = 0.3  # distance from one at which the outer objective clips the likelihood ratio
    max_grad_norm: float | None = None  # largest norm of the meta-gradient; None: unlimited
    kl_penalty: float = 5e-4  # weight of the KL penalty on the policies before each inner step
    target_kl: float | None = None  # target of the KL divergence to which the penalty adapts; None: a fixed penalty

    def __post_init__(self) -> None:
        super().__post_init__()
        rounds(self, "num_epochs")
        positive(self, "outer_lr", "clip", "max_grad_norm", "target_kl")
        not_negative(self, "kl_penalty")
        if self.target_kl is not None and not self.kl_penalty:
            raise ValueError(f"target_kl is {self.target_kl}; kl_penalty, which adapts to it, must not be 0")

    def make_outer_step(self, parameters: list[nn.Parameter]) -> OuterStep:
        return GradientEpochs(
            parameters,
            learning_rate=self.outer_lr,
            num_epochs=self.num_epochs,
            clip=self.clip,
            kl_penalty=self.kl_penalty,
            target_kl=self.target_kl,
            num_inner_steps=self.num_inner_steps,
            max_grad_norm=self.max_grad_norm,
        )
