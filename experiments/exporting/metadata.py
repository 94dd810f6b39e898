"""What whoever runs an exported agent must know of it: names, units and ranges, and how the agent was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from gymnasium import spaces

from experiments.experiment.config_json import to_json
from experiments.exporting.graphs import Graph, named_tensors
from metarl.deployment import DeploysAdaptation
from metarl.errors import UserError
from metarl.run.archive import PackedRun
from metarl.run.directory import Run
from metarl.run.provenance import versions
from metarl.trainer import Trainer

_TASKS_TO_SEE = 10_000  # training tasks drawn for their ranges


def metadata_of(
    trainer: Trainer, graph: Graph, max_items: int | None, curve: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The metadata of an agent's step, as JSON values.

    max_items: steps of a trial that the memory keeps; None: all. curve: the evaluation of the run on test tasks; None
    where it has none.
    """
    family, agent = trainer.family, trainer.agent
    env = family.make_env(1, torch.Generator().manual_seed(0))
    model = getattr(getattr(env, "physics", None), "model", None)  # of MuJoCo's robots
    return {
        "format": 1,
        "agent": trainer.agent_name,
        "family": family.name,
        "iteration": trainer.iteration,
        **signature(graph),
        "cleared_by": "a new task, never a new episode: set new_task to true at the first step in a task only",
        "memory_keeps_steps": max_items,
        "episodes_before_adapt": agent.block if isinstance(trainer.agent, DeploysAdaptation) else None,
        "reads_reward": "reward" in graph.inputs,
        "deterministic": True,
        "observation": {"size": family.observation_space.shape[0], "names": getattr(family, "observation_names", None)},
        "action": action_form(family.action_space),
        "robot": None if model is None else _robot(model),
        "control_rate_hz": None if model is None else 1 / env.seconds_per_step,
        "horizon": family.horizon,
        "episodes_in_a_trial": trainer.num_points,
        "task_ranges": _ranges(family),
        "family_settings": to_json(family),
        "agent_settings": to_json(agent.config),
        "versions": versions(),
        "adaptation_curve": curve,
    }


def signature(graph: Graph) -> dict[str, Any]:
    """The inputs and outputs of a graph, as JSON values."""
    inputs = {
        name: {
            "type": str(value.dtype).removeprefix("torch."),
            "shape": ["rows", *value.shape[1:]] if graph.has_rows else list(value.shape),
            "meaning": graph.meanings.get(name, f"the state: zeros at first, then the output next.{name}"),
        }
        for name, value in graph.inputs.items()
    }
    return {"inputs": inputs, "outputs": list(graph.outputs), "state": graph.state}


def action_form(space: spaces.Space[Any]) -> dict[str, Any]:
    """The actions: how many there are to choose from, or the bounds to which the environment clips each number."""
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "choices": int(space.n)}
    assert isinstance(space, spaces.Box)
    return {
        "kind": "continuous",
        "size": space.shape[0],
        "clip": {"low": space.low.tolist(), "high": space.high.tolist()},
    }


def _robot(model: Any) -> dict[str, Any]:
    """The joints and actuators of a compiled MuJoCo model, in the order of its controls."""
    joints = [model.joint(index) for index in range(model.njnt)]
    actuators = [model.actuator(index) for index in range(model.nu)]
    return {
        "joints": [
            {"name": joint.name, "qpos": int(joint.qposadr[0]), "qvel": int(joint.dofadr[0])} for joint in joints
        ],
        "actuators": [
            {
                "name": actuator.name,
                "joint": model.joint(int(actuator.trnid[0])).name if actuator.trntype[0] == 0 else None,
                "control_range": actuator.ctrlrange.tolist(),
                "gear": float(actuator.gear[0]),
                "gain": float(actuator.gainprm[0]),
                "bias": actuator.biasprm[:3].tolist(),
            }
            for actuator in actuators
        ],
        "timestep": float(model.opt.timestep),
    }


def _ranges(family: Any) -> dict[str, Any]:
    """The least and the largest value of each parameter among many training tasks."""
    tasks = family.sample(_TASKS_TO_SEE, "train", torch.Generator().manual_seed(0))
    return {name: [value.amin(0).tolist(), value.amax(0).tolist()] for name, value in named_tensors(tasks)}


def curve_of(run: Run) -> dict[str, Any] | None:
    """A run's adaptation curve on test tasks, as it was measured when the run or its archive was made."""
    try:
        if isinstance(run, PackedRun):
            evaluation = run.evaluation("test")
        else:
            evaluation = json.loads((run.path / "evaluation_test.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, UserError):
        return None
    kept = ("split", "num_tasks", "iteration", "tasks_hash")
    points = [{"mean": point["mean"], "ci95": point["ci95"]} for point in evaluation["points"]]
    return {name: evaluation.get(name) for name in kept} | {"point": evaluation["measure"]["point"], "points": points}
