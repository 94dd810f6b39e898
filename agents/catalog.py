"""The agents by name: where each configuration class lives. Strings, so that listing them imports nothing."""

AGENTS: dict[str, str] = {
    "maml_trpo": "agents.maml:MAMLTRPOConfig",
    "promp": "agents.promp:ProMPConfig",
    "pearl": "agents.pearl:PEARLConfig",
    "rl2": "agents.rl2:RL2Config",
}
