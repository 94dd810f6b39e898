"""Shortcut use: what an agent's adaptation really reads, found by withholding one signal after another.

What is withheld is replaced by what another task's row read at the same time, so it looks as always and says nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.rows import close
from experiments.workbench.insight.findings import Difference, Evidence, Finding, score_row, shifted
from experiments.workbench.insight.watching import Misled
from metarl.evaluation import run_trials
from metarl.protocols import Split
from metarl.rl.rollouts import rows_per_task
from metarl.trainer import Trainer

SIGNALS = ("observations", "rewards", "actions")


def shortcuts(trainer: Trainer, split: Split, num_tasks: int, seed: int) -> Finding:
    """The score at the last point with each signal withheld from the adaptation; what acts sees all."""
    family, measure = trainer.family, trainer.source.measure
    order = shifted(num_tasks)
    tasks = family.sample(num_tasks, split, torch.Generator(trainer.device).manual_seed(seed))

    def scores(agent: Any) -> Tensor:  # [points, N]
        generator = torch.Generator(trainer.device).manual_seed(seed + 1)
        env = family.make_env(num_tasks * rows_per_task(agent), generator)
        try:
            return run_trials(env, agent, tasks, trainer.num_points, generator=generator).returns
        finally:
            close(env)

    everything = scores(trainer.agent)
    gain = Difference.of(everything[-1], everything[0], measure)
    rows = [score_row("nothing", everything[-1]), score_row("all, as before any data", everything[0])]
    lost = {}
    for signal in SIGNALS:
        without = scores(Misled(trainer.agent, signal, order))[-1]
        lost[signal] = Difference.of(everything[-1], without, measure)
        rows.append(score_row(signal, without))
    title = f"{measure.name} at the last point on {split} tasks, by what the adaptation does not read"
    evidence = [Evidence(title, ["withheld", "mean", "95 %"], rows)]
    numbers = {"gain": gain.mean} | {f"lost_without_{signal}": one.mean for signal, one in lost.items()}
    needed = {signal: one for signal, one in lost.items() if one.low > 0}
    listed = ", ".join(f"{signal} ({one})" for signal, one in needed.items())
    if not needed:
        is_telling = gain.low > 0 and all(one.high < gain.mean for one in lost.values())
        verdict = f"withholding any one signal costs nothing to speak of; the gain of adaptation is {gain}"
        return Finding("shortcuts", "warning" if is_telling else "unknown", verdict, evidence, numbers)
    if "rewards" in needed:
        return Finding("shortcuts", "fine", f"the adaptation needs its {listed}", evidence, numbers)
    if lost["rewards"].high < max(one.mean for one in needed.values()):
        verdict = f"it adapts without rewards, from {listed}: is the task to be seen in them?"
        return Finding("shortcuts", "warning", verdict, evidence, numbers)
    verdict = (
        f"cannot be told from {num_tasks} tasks whether it needs rewards ({lost['rewards']}); it needs its {listed}"
    )
    return Finding("shortcuts", "unknown", verdict, evidence, numbers)
