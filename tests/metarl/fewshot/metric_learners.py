"""Metric learners, hypernetworks and Bayesian ones on images, as small as a probe allows, and what they reach.

Settings, iterations, and the accuracy after one shot, at least.
"""

from dataclasses import replace
from typing import Any

from metarl.fewshot.methods.film import FilmConfig
from metarl.fewshot.methods.gaussian_prototypes import GaussianPrototypesConfig
from metarl.fewshot.methods.hypernetwork import HypernetworkConfig
from metarl.fewshot.methods.laplace import LaplaceConfig
from metarl.fewshot.methods.matching import MatchingConfig
from metarl.fewshot.methods.meta_opt_net import MetaOptNetConfig
from metarl.fewshot.methods.prototypical import PrototypicalConfig
from metarl.fewshot.methods.relation import RelationConfig
from metarl.fewshot.methods.siamese import SiameseConfig
from metarl.fewshot.methods.versa import VersaConfig
from metarl.nets.conv import ConvConfig

EMBEDDING = ConvConfig(filters=16, num_blocks=2, normalisation="running")
MAPS = replace(EMBEDDING, output="maps", num_downsampled=1)
_FAST: dict[str, Any] = {"conv": EMBEDDING, "outer_lr": 5e-3}
_SLOW: dict[str, Any] = {"conv": EMBEDDING, "outer_lr": 3e-3}

METRIC_LEARNERS: dict[str, tuple[Any, int, float]] = {
    "prototypical": (PrototypicalConfig(**_FAST), 100, 0.85),
    "matching": (MatchingConfig(**_FAST), 60, 0.85),
    "matching_in_context": (MatchingConfig(context_steps=3, **_FAST), 60, 0.85),
    "relation": (RelationConfig(conv=MAPS, outer_lr=5e-3), 90, 0.8),
    "siamese": (SiameseConfig(feature_size=32, **_FAST), 50, 0.85),
    "meta_opt_net": (MetaOptNetConfig(num_steps=50, **_FAST), 50, 0.85),
    "meta_opt_net_ridge": (MetaOptNetConfig(head="ridge", **_FAST), 50, 0.85),
    "film": (FilmConfig(code_size=16, encoder_blocks=1, hidden_size=32, **_FAST), 80, 0.85),
    "hypernetwork": (HypernetworkConfig(code_size=16, **_SLOW), 120, 0.85),
    "versa": (VersaConfig(**_SLOW), 120, 0.8),
    "gaussian_prototypes": (GaussianPrototypesConfig(**_FAST), 80, 0.85),
    "laplace": (LaplaceConfig(**_FAST), 50, 0.85),
}
