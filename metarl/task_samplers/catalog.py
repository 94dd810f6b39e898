"""The samplers of training tasks, by the names that the command line takes; a `Curriculum` is written in Python."""

from __future__ import annotations

from typing import Any

from metarl.task_samplers.adr import ADRConfig
from metarl.task_samplers.alp_gmm import ALPGMMConfig
from metarl.task_samplers.class_aware import ClassAwareConfig
from metarl.task_samplers.curriculum import Curriculum
from metarl.task_samplers.plr import ACCELConfig, PLRConfig
from metarl.task_samplers.roml import RoMLConfig
from metarl.task_samplers.sampler import UniformConfig

AnySampler = (
    UniformConfig | RoMLConfig | PLRConfig | ACCELConfig | ALPGMMConfig | ADRConfig | ClassAwareConfig | Curriculum
)

SAMPLERS: dict[str, Any] = {
    "uniform": UniformConfig(),
    "roml": RoMLConfig(),
    "plr": PLRConfig(),
    "robust_plr": PLRConfig(robust=True),
    "accel": ACCELConfig(),
    "alp_gmm": ALPGMMConfig(),
    "adr": ADRConfig(),
    "class_aware": ClassAwareConfig(),
}
