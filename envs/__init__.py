"""Task families: distributions over tasks, and the vectorised environments they run in.

Importing this package registers every family of `envs.catalog` with Gymnasium, as `metarl/<Class>-v0`, and imports
neither torch nor a simulator.
"""


def _register_families() -> None:
    """By strings, so that a family's module is imported when an environment is made and not before."""
    import gymnasium  # not at the top of the module, where it would share a name with envs.bridges.gymnasium_env

    from envs.catalog import FAMILIES

    for name, path in FAMILIES.items():
        environment = f"metarl/{path.split(':')[1]}-v0"
        if environment not in gymnasium.registry:
            gymnasium.register(
                environment,
                entry_point="envs.bridges.gymnasium_env:GymnasiumEnv",
                vector_entry_point="envs.bridges.gymnasium_env:GymnasiumVectorEnv",
                kwargs={"family": name},
            )


_register_families()
