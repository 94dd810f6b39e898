"""Meta-RL agents: each is made by its configuration. `from agents import RL2Config`."""

from typing import TYPE_CHECKING

from metarl._lazy import lazily

if TYPE_CHECKING:
    from agents.algorithm_distillation import ADConfig
    from agents.dpt import DPTConfig
    from agents.maml import MAMLTRPOConfig
    from agents.pearl import PEARLConfig
    from agents.promp import ProMPConfig
    from agents.rl2 import RL2Config
    from agents.rl2_sac import RL2SACConfig
    from agents.teacher_student import TeacherStudentConfig
    from agents.varibad import VariBADConfig

__all__ = [
    "ADConfig",
    "DPTConfig",
    "MAMLTRPOConfig",
    "PEARLConfig",
    "ProMPConfig",
    "RL2Config",
    "RL2SACConfig",
    "TeacherStudentConfig",
    "VariBADConfig",
]

_OFFERED = {
    "ADConfig": "agents.algorithm_distillation:ADConfig",
    "DPTConfig": "agents.dpt:DPTConfig",
    "MAMLTRPOConfig": "agents.maml:MAMLTRPOConfig",
    "PEARLConfig": "agents.pearl:PEARLConfig",
    "ProMPConfig": "agents.promp:ProMPConfig",
    "RL2Config": "agents.rl2:RL2Config",
    "RL2SACConfig": "agents.rl2_sac:RL2SACConfig",
    "TeacherStudentConfig": "agents.teacher_student:TeacherStudentConfig",
    "VariBADConfig": "agents.varibad:VariBADConfig",
}

__getattr__, __dir__ = lazily(__name__, _OFFERED)
