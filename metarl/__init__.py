"""Meta-reinforcement learning and few-shot learning: train an experiment, evaluate its run, load its agent.

    run = metarl.train("grid_navi/rl2", seed=3, overrides={"train.num_iterations": 50})
    curve = metarl.evaluate(run, split="test", tasks=200)
    agent = metarl.load(run, checkpoint="best")

The modules of this package are the meta-learner core, which imports no environment and no agent. The functions below
are imported lazily from `experiments`, which brings them together, when first used.
"""

from typing import Any

from metarl._lazy import lazily
from metarl._packages import require_own_packages

_OFFERED = {
    name: f"experiments.experiment.python:{name}"
    for name in ("evaluate", "list_experiments", "load", "make_family", "train")
}

__all__ = ["evaluate", "list_experiments", "load", "make_family", "train"]  # pyright: ignore[reportUnsupportedDunderAll]

_get, __dir__ = lazily(__name__, _OFFERED)


def __getattr__(name: str) -> Any:
    """What is offered; ImportError where a package of the user's stands in the place of one that it needs."""
    if name in _OFFERED:
        require_own_packages()
    return _get(name)
