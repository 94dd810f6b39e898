"""Meta-reinforcement learning and few-shot learning: train an experiment, evaluate its run, load its agent.

    run = metarl.train("grid_navi/rl2", seed=3, overrides={"train.num_iterations": 50})
    curve = metarl.evaluate(run, split="test", tasks=200)
    agent = metarl.load(run, checkpoint="best")

The modules of this package are the meta-learner core, which imports no environment and no agent. The functions below
are imported lazily from `experiments`, which brings them together, when first used.
"""

from metarl._lazy import lazily

_OFFERED = {
    name: f"experiments.experiment.python:{name}"
    for name in ("evaluate", "list_experiments", "load", "make_family", "train")
}

__all__ = ["evaluate", "list_experiments", "load", "make_family", "train"]  # pyright: ignore[reportUnsupportedDunderAll]

__getattr__, __dir__ = lazily(__name__, _OFFERED)
