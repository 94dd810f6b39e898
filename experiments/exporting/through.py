"""An agent that acts through an exported file, for the same evaluation as the agent in PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from experiments.exporting.files import OnnxFile
from experiments.exporting.graphs import input_name
from experiments.exporting.metadata import action_form
from metarl.deployment import DeploysAdaptation
from metarl.errors import UserError
from metarl.protocols import TaskFamily
from metarl.records import Decision, Record, SampledDecision, Step, Trajectory


@dataclass(frozen=True)
class FileState(Record):
    """What the file returned last."""

    state: dict[str, Tensor]  # the inputs of the next step, by name
    action: Tensor  # [B] or [B, A]; zeros before the first step
    new_task: Tensor  # [B] bool, whether the next step is the first in a task
    num_tasks: int  # N


class FileAgent:
    """An `Agent` that cannot learn; it acts by the policy's mode, and draws posterior samples from a generator."""

    training_blocks: int | None = None

    def __init__(
        self, file: OnnxFile, generator: torch.Generator | None = None, adaptation: FileAdaptation | None = None
    ) -> None:
        """generator: of the noise to explore by; None for none. adaptation: what follows a block of episodes."""
        self.file, self.generator, self.adaptation = file, generator, adaptation
        self.block: int | None = None if adaptation is None else file.metadata["episodes_before_adapt"]
        self._inputs: Mapping[str, Any] = file.metadata["inputs"]

    def prior(self, num_tasks: int, copies: int = 1) -> FileState:
        """Zeros: the file itself knows the state at the start of a task, and is asked for it where that adapts."""
        rows = num_tasks * copies
        state = {name: self._zeros(name, rows) for name in self.file.metadata["state"]}
        action, new_task = self._zeros(input_name("action"), rows), torch.ones(rows, dtype=torch.bool)
        blank = FileState(state, action, new_task, num_tasks)
        if self.adaptation is None:
            return blank
        obs, no = self._zeros("obs", rows), torch.zeros_like(new_task)
        return self.observe(blank, None, Step(obs, obs, torch.zeros(rows), no, no))

    def observe(self, state: FileState, action: Tensor | None, step: Step) -> FileState:
        """The state and the action after one step of the file; `action` is None for the first step of a block."""
        rows = len(step.obs)
        given: dict[str, Tensor] = {
            "obs": step.obs,
            input_name("action"): state.action if action is None else action,
            "reward": step.reward,
            "episode_end": step.episode_end,
            "new_task": state.new_task,
            "next_obs": step.next_obs,
        }
        if "noise" in self._inputs:
            given["noise"] = self._zeros("noise", rows)
            if self.generator is not None:
                given["noise"].normal_(generator=self.generator)
        outputs = self.file({name: (given | state.state)[name] for name in self._inputs})
        following = {name: outputs[output] for name, output in self.file.metadata["state"].items()}
        return FileState(following, outputs["action"], torch.zeros_like(state.new_task), state.num_tasks)

    def act(self, state: FileState, obs: Tensor, generator: torch.Generator | None) -> Decision:
        return SampledDecision(state.action, torch.zeros(len(obs)))  # the file does not return the log-probability

    def adapt(self, state: FileState, trajectory: Trajectory[Any]) -> FileState:
        """The state after a block of episodes; unchanged where the file has already read every step."""
        if self.adaptation is None:
            return state
        return replace(state, state=self.adaptation(state.state, trajectory, state.num_tasks))

    def _zeros(self, name: str, rows: int) -> Tensor:
        form = self._inputs.get(name)
        if form is None:  # an input that the file does not read
            return torch.zeros(rows)
        return torch.zeros(rows, *form["shape"][1:], dtype=getattr(torch, form["type"]))


class FileAdaptation:
    """The file of an adaptation, beside that of a step."""

    def __init__(self, file: OnnxFile, inputs_of: Callable[[Any, int], dict[str, Tensor]]) -> None:
        """inputs_of: as in `metarl.deployment.DeployedAdaptation`."""
        self.file, self.inputs_of = file, inputs_of

    def __call__(self, state: Mapping[str, Tensor], trajectory: Trajectory[Any], num_tasks: int) -> dict[str, Tensor]:
        """The state of all rows [B, ...] after a block; the rows of a task share it."""
        given, copies = self.inputs_of(trajectory, num_tasks), len(next(iter(state.values()))) // num_tasks
        forms, following = self.file.metadata["inputs"], self.file.metadata["state"]
        tasks: list[dict[str, Tensor]] = []
        for task in range(num_tasks):
            of_task = {name: _padded(value[task], forms[name]["shape"][0]) for name, value in given.items()}
            of_task |= {name: value[task * copies : task * copies + 1] for name, value in state.items()}
            outputs = self.file({name: of_task[name] for name in forms})
            tasks.append({name: outputs[output] for name, output in following.items()})
        return {name: torch.cat([one[name] for one in tasks]).repeat_interleave(copies, 0) for name in following}


def _padded(values: Tensor, size: int) -> Tensor:
    """Values [K, ...] with zeros up to [size, ...]."""
    return torch.cat([values, values.new_zeros(size - len(values), *values.shape[1:])])


def file_agent(file: OnnxFile, family: TaskFamily, learner: Any, *, deterministic: bool, seed: int) -> FileAgent:
    """The agent of a file, for tasks of this family.

    learner: the agent in PyTorch, which makes the inputs of an adaptation from a block of episodes.

    Raises:
        UserError: when the file is not that of an agent's step, or has other observations or actions.
    """
    inputs = file.metadata.get("inputs", {})
    if not {"obs", "new_task"} <= set(inputs) or "action" not in file.outputs:
        raise UserError(f"--through is {file.path}; must be the step of an agent that acts, such as step.onnx")
    shapes = list(inputs["obs"]["shape"][1:]), list(family.observation_space.shape or ())
    if shapes[0] != shapes[1]:
        raise UserError(f"{file.path} reads observations of shape {shapes[0]}; those of {family.name} are {shapes[1]}")
    own, wanted = file.metadata["action"], action_form(family.action_space)
    if own != wanted:
        raise UserError(f"{file.path} gives actions {json.dumps(own)}; those of {family.name} are {json.dumps(wanted)}")
    adaptation, block = None, file.metadata.get("episodes_before_adapt")
    if block is not None and isinstance(learner, DeploysAdaptation):
        inputs_of = learner.deployed_adaptation(block * family.horizon).inputs_of
        adaptation = FileAdaptation(OnnxFile(file.path.with_name("adapt.onnx")), inputs_of)
    return FileAgent(file, None if deterministic else torch.Generator().manual_seed(seed), adaptation)
