"""Interference: whether tasks pull the meta-parameters apart, and what adapting to one does to others.

Yu et al. Gradient surgery for multi-task learning (2020), for cosines between the gradients of tasks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.rows import close
from experiments.workbench.insight.exchange import Exchange
from experiments.workbench.insight.findings import Difference, Evidence, Finding, text
from experiments.workbench.insight.probing import target_of
from experiments.workbench.insight.states import parameters_of
from metarl.evaluation import Measure
from metarl.fewshot.episode import FewShotFamily
from metarl.protocols import ShowsGradients
from metarl.records import Record
from metarl.rl.rollouts import rows_per_task, run_trial
from metarl.rl.trials import TrialSource
from metarl.trainer import Trainer

_COSINE = Measure("cosine")
_SAME, _OTHERS = "same task", "different tasks"  # kinds of pairs; the same one from other experience


def cosines(vectors: Tensor, others: Tensor | None = None) -> Tensor:
    """The cosines of the angles between rows [N, P] and rows [M, P]: [N, M]."""
    units = [
        torch.nn.functional.normalize(rows.double(), dim=1) for rows in (vectors, vectors if others is None else others)
    ]
    return units[0] @ units[1].T


def gradients(trainer: Trainer, num_tasks: int, copies: int, seed: int) -> tuple[Tensor, Tensor, Record | None]:
    """The meta-gradients of training tasks from two independent batches of experience, [N, P] each; and the tasks.

    copies: rows of each task, for agents whose state is in a row.
    """
    learner: Any = trainer.agent
    generator = torch.Generator(trainer.device).manual_seed(seed)
    if isinstance(trainer.family, FewShotFamily):
        return _of_episodes(trainer, num_tasks, generator)
    family = trainer.family
    tasks = family.sample(num_tasks, "train", generator)
    num_rows = num_tasks * (copies if learner.block is None else rows_per_task(learner))
    num_points = trainer.num_points if learner.training_blocks is None else learner.training_blocks
    make_env = trainer.source.training_env if isinstance(trainer.source, TrialSource) else family.make_env
    found = []
    for _ in range(2):
        env = make_env(num_rows, generator)
        try:
            trial = list(run_trial(env, learner, tasks, num_points, generator=generator))
        finally:
            close(env)
        found.append(learner.task_gradients(trial, num_tasks, generator).detach().cpu())
    return found[0], found[1], tasks


def _of_episodes(trainer: Trainer, num_tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Record | None]:
    """For few-shot learners: the second batch has the first one's supports and queries in each other's place."""
    learner: Any = trainer.agent
    family = trainer.family.training
    one = family.episode(num_tasks, "train", queries=family.shots, generator=generator)
    swapped = type(one)(one.query, one.support)
    found = [learner.task_gradients(episode, num_tasks, generator).detach().cpu() for episode in (one, swapped)]
    return found[0], found[1], one.tasks


def interference(trainer: Trainer, exchange: Exchange | None, num_tasks: int, copies: int, seed: int) -> Finding:
    """Cosines of the meta-gradients of training tasks, and the transfer matrix of as many tasks."""
    evidence, numbers, matrix = [], {}, None
    if exchange is not None:
        transferred, transfer = _transfer(exchange, num_tasks)
        evidence.append(transferred)
        numbers |= {"transfer_to_itself": float(transfer.diagonal().mean()), "transfer": float(_apart(transfer).mean())}
        matrix = transfer.tolist()
    if not isinstance(trainer.agent, ShowsGradients):
        verdict = f"{trainer.agent_name} does not show its gradients by task: it has no method task_gradients"
        return Finding("interference", "unknown", verdict, evidence, numbers, matrix)
    first, second, tasks = gradients(trainer, num_tasks, copies, seed)
    between = cosines(first, second)
    groups = {name: _mean_in(between, pairs) for name, pairs in _pairs(tasks, len(between)).items()}
    rows = [
        [name, text(cosine.mean), f"{text(cosine.low)} to {text(cosine.high)}", text(below)]
        for name, (cosine, below) in groups.items()
    ]
    columns = ["between", "mean", "95 %", "share below 0"]
    evidence.insert(0, Evidence("cosine between meta-gradients of training tasks", columns, rows))
    numbers |= {f"cosine_{name.replace(' ', '_')}": cosine.mean for name, (cosine, _) in groups.items()}
    opposed = [f"{name} {cosine}" for name, (cosine, _) in groups.items() if name != _SAME and cosine.high < 0]
    if opposed:
        verdict = f"tasks pull apart; cosine between meta-gradients: {', '.join(opposed)}"
        return Finding("interference", "warning", verdict, evidence, numbers, matrix)
    verdict = f"tasks do not pull apart; cosine between meta-gradients: {_OTHERS} {groups[_OTHERS][0]}"
    return Finding("interference", "fine", verdict, evidence, numbers, matrix)


def _apart(matrix: Tensor) -> Tensor:
    """The entries off the diagonal of [N, N]: [N (N - 1)]."""
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)]


def _mean_in(between: Tensor, pairs: Tensor) -> tuple[Difference, float]:
    """The mean cosine [N, N] of some pairs [N, N] (bool), with its interval over tasks, and the share below zero."""
    has_any = pairs.any(1)
    by_task = torch.where(pairs, between, 0.0).sum(1)[has_any] / pairs.sum(1)[has_any]
    return Difference.of(by_task, torch.zeros_like(by_task), _COSINE), float((between[pairs] < 0).double().mean())


def _pairs(tasks: Record | None, num_tasks: int) -> dict[str, Tensor]:
    """Kinds of pairs of tasks, [N, N] (bool) each: the same, others, and by the value of parameters with few values."""
    same = torch.eye(num_tasks, dtype=torch.bool)
    found = {_SAME: same, _OTHERS: ~same}
    for name, values in parameters_of(tasks).items():
        classes = target_of(values)
        if classes is None or classes.dtype != torch.int64 or int(classes.max()) + 1 > num_tasks // 3:
            continue
        equal = classes[:, None] == classes[None]
        found |= {f"equal {name}": equal & ~same, f"other {name}": ~equal}
    return {name: pairs for name, pairs in found.items() if bool(pairs.any())}


def _transfer(exchange: Exchange, num_tasks: int) -> tuple[Evidence, Tensor]:
    """The scores after adapting to task i (rows) in task j (columns), in the order of the first parameter: [N, N]."""
    chosen = torch.arange(min(num_tasks, exchange.num_tasks))
    values = next(iter(parameters_of(exchange.tasks).values()), None)
    if values is not None:
        chosen = chosen[values[chosen].reshape(len(chosen), -1)[:, 0].argsort()]
    size = len(chosen)
    matrix = exchange.scores(chosen.repeat_interleave(size), chosen.repeat(size)).view(size, size).double().cpu()
    rows = [["itself", text(float(matrix.diagonal().mean()))], ["others", text(float(_apart(matrix).mean()))]]
    if values is not None:
        near = torch.cat([matrix.diagonal(1), matrix.diagonal(-1)])
        rows.append(["its neighbours by parameter", text(float(near.mean()))])
    title = f"{exchange.measure.name} after adapting to one of {size} tasks, in"
    return Evidence(title, ["task", "mean"], rows), matrix
