"""The agents' configuration classes by name, as strings, so listing them imports no other module."""

AGENTS: dict[str, str] = {
    "maml_trpo": "agents.maml:MAMLTRPOConfig",
    "promp": "agents.promp:ProMPConfig",
    "pearl": "agents.pearl:PEARLConfig",
    "rl2": "agents.rl2:RL2Config",
    "rl2_sac": "agents.rl2_sac:RL2SACConfig",
    "varibad": "agents.varibad:VariBADConfig",
    "ad": "agents.algorithm_distillation:ADConfig",
    "dpt": "agents.dpt:DPTConfig",
    "teacher_student": "agents.teacher_student:TeacherStudentConfig",
}
