"""The gradient family on images, as small as a probe allows: settings, iterations, accuracy after one step at least."""

from dataclasses import replace
from typing import Any

from metarl.fewshot.methods.anil import ANILConfig
from metarl.fewshot.methods.imaml import IMAMLConfig
from metarl.fewshot.methods.learned_optimizer import LearnedOptimizerConfig
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.methods.maml_plus_plus import MAMLPlusPlusConfig
from metarl.fewshot.methods.meta_learner_lstm import MetaLearnerLSTMConfig
from metarl.fewshot.methods.meta_networks import MetaNetworkConfig
from metarl.fewshot.methods.meta_sgd import MetaSGDConfig
from metarl.fewshot.methods.reptile import ReptileConfig
from metarl.fewshot.methods.reptile_lora import ReptileLoRAConfig
from metarl.fewshot.methods.t_net import TNetConfig
from metarl.nets.conv import ConvConfig

CONV = ConvConfig(filters=8, num_blocks=2, downsampling="stride")
_ADAM: dict[str, Any] = {"conv": CONV, "inner_optimizer": "adam", "inner_batch": 6}

GRADIENT_LEARNERS: dict[str, tuple[Any, int, float]] = {
    "maml": (MAMLConfig(conv=CONV, batching="vmap", inner_lr=0.4, outer_lr=1e-2), 60, 0.68),
    "maml_plus_plus": (
        MAMLPlusPlusConfig(
            conv=CONV, batching="vmap", num_inner_steps=2, inner_lr=0.4, multi_step_share=1.0, outer_lr=1e-2
        ),
        60,
        0.65,
    ),
    "meta_sgd": (MetaSGDConfig(conv=CONV, batching="vmap", inner_lr=0.4, outer_lr=1e-2), 60, 0.8),
    "anil": (ANILConfig(conv=CONV, batching="vmap", inner_lr=1.0, num_inner_steps=3, outer_lr=1e-2), 60, 0.62),
    "imaml": (
        IMAMLConfig(
            conv=CONV, batching="vmap", inner_lr=0.2, num_inner_steps=3, num_cg_steps=2, strength=1.0, outer_lr=1e-2
        ),
        50,
        0.6,
    ),
    "t_net": (TNetConfig(conv=CONV, inner_lr=0.4, outer_lr=1e-2), 60, 0.68),
    "mt_net": (TNetConfig(conv=CONV, inner_lr=0.4, outer_lr=1e-2, gated=True), 60, 0.68),
    "reptile": (ReptileConfig(inner_lr=1e-2, **_ADAM), 100, 0.62),
    "reptile_lora": (ReptileLoRAConfig(inner_lr=2e-2, **_ADAM), 100, 0.65),
    "meta_networks": (
        MetaNetworkConfig(conv=replace(CONV, normalisation="running"), hidden_size=16, outer_lr=1e-2),
        80,
        0.8,
    ),
    "meta_learner_lstm": (
        MetaLearnerLSTMConfig(conv=CONV, num_inner_steps=2, hidden_size=8, inner_lr=0.3, outer_lr=1e-2),
        50,
        0.75,
    ),
    "learned_optimizer": (
        LearnedOptimizerConfig(conv=CONV, num_inner_steps=2, hidden_size=8, outer_lr=1e-2),
        70,
        0.62,
    ),
}
