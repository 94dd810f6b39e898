"""The proof that an exported file does what the learner does: both are run on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experiments.experiment.acting import ActingAgent
from experiments.exporting.graphs import STATE, Graph, input_name
from metarl.deployment import StepInputs
from metarl.errors import UserError
from metarl.protocols import VectorEnv
from metarl.trainer import Trainer

NUM_STEPS = 200  # a new task begins after half of them, or earlier where the memory holds fewer
TOLERANCE = 1e-5  # largest difference, relative to the largest action, or number in the rest, that exceeds one
_EPISODE = 37  # number of steps after which an episode is said to end
_NUM_INPUTS = 20  # random inputs on which a function is compared

Run = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]  # of a file: its inputs to its outputs, by name


@dataclass(frozen=True)
class Parity:
    """The largest difference between a learner and its file, among several runs of it."""

    number: int
    difference: float
    where: str  # the output that differs most, and in which run
    unit: str = "step"  # name of one run of the file

    def __str__(self) -> str:
        return f"at most {self.difference:.2g} in {self.number} {self.unit}s, in {self.where}"


def compared(worst: Parity, number: int, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Parity:
    """The largest difference so far, after run `number`.

    Raises:
        UserError: when a difference exceeds `TOLERANCE`; names the output and the run.
    """
    sizes = {name: float(value.abs().nan_to_num(posinf=0).max()) for name, value in expected.items() if value.numel()}
    largest = {name: max(1.0, sizes[name] if name == "action" else max(sizes.values())) for name in sizes}
    for name, value in expected.items():
        difference = _difference(value, found[name]) / largest.get(name, 1.0)
        if not difference <= TOLERANCE:  # nor a difference that is not a number
            raise UserError(
                f"the file differs from the learner by {difference:.2g} in {name} at {worst.unit} {number} of "
                f"{worst.number}; at most {TOLERANCE:g} is allowed, and nothing was exported"
            )
        if difference > worst.difference:
            worst = replace(worst, difference=difference, where=f"{name} at {worst.unit} {number}")
    return worst


def check_parity(
    trainer: Trainer, graph: Graph, run: Run, *, max_items: int | None = None, num_steps: int = NUM_STEPS, seed: int = 0
) -> Parity:
    """Compare the file of a step with the agent, and with the step in PyTorch, in an environment of its family.

    The agent acts as in `metarl.load`, by its mode. An episode is said to end now and then, so its end is read as
    well. Actions are compared with the agent's, which remembers by itself; the state with that of the step. max_items:
    of the agent's memory, within which a task must end.

    Raises:
        UserError: as `compared`.
    """
    noise_size = graph.inputs["noise"].shape[1] if "noise" in graph.inputs else 0
    length = min(num_steps // 2, num_steps if max_items is None else max_items)
    worst = Parity(num_steps, 0.0, "no output")
    state = {name: torch.zeros_like(graph.inputs[name][:1]) for name in graph.state}
    for number, (inputs, action) in enumerate(_steps(trainer, num_steps, length, noise_size, seed)):
        given = {name: (inputs | state)[name] for name in graph.inputs}
        with torch.no_grad():
            expected = dict(zip(graph.outputs, graph.function(*given.values()), strict=True))
        outputs = run(given)
        worst = compared(worst, number, {**expected, "action": action}, outputs)
        state = {name: outputs[following] for name, following in graph.state.items()}
    return worst


def check_function(graph: Graph, run: Run, seed: int = 0, unit: str = "input") -> Parity:
    """Compare the file of a function with the one in PyTorch, on random inputs and the example's state.

    unit: what one input is called.

    Raises:
        UserError: as `compared`.
    """
    generator = torch.Generator().manual_seed(seed)
    worst = Parity(_NUM_INPUTS, 0.0, "no output", unit=unit)
    for number in range(_NUM_INPUTS):
        given = {
            name: torch.randn(value.shape, generator=generator)
            if value.is_floating_point() and not name.startswith(STATE)
            else value
            for name, value in graph.inputs.items()
        }
        outputs = (value.detach() for value in graph.function(*given.values()))
        expected = dict(zip(graph.outputs, outputs, strict=True))
        worst = compared(worst, number, expected, run(given))
    return worst


def _difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference between two tensors, equal infinities being none; NaN where their shapes differ."""
    if expected.shape != found.shape:
        return float("nan")
    expected, found = expected.double(), found.double()
    apart = torch.where(expected == found, 0.0, (expected - found).abs())
    return float(apart.max()) if apart.numel() else 0.0


def _steps(
    trainer: Trainer, num_steps: int, length: int, noise_size: int, seed: int
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """The steps of an agent in tasks of some length: a file's inputs by name, and the action [1, ...] it chose."""
    agent = ActingAgent(trainer, deterministic=True)
    agent.reset(num_envs=1)
    generator = torch.Generator(trainer.device).manual_seed(seed)
    env: VectorEnv = trainer.family.make_env(1, generator)
    space = trainer.family.action_space
    action = torch.zeros(1, *(space.shape or ()), dtype=torch.as_tensor(space.sample()).dtype)
    for number in range(num_steps):
        new_task = number % length == 0
        if new_task:
            agent.new_task()
            step = env.reset(trainer.family.sample(1, "test", generator))
        else:
            step = env.step(action)
            if number % _EPISODE == 0:
                step = replace(step, truncated=~step.terminated)
            agent.observe(step.next_obs, action, step.reward, step.terminated, step.truncated)
        inputs = StepInputs(
            obs=step.obs,
            action=action,
            reward=step.reward,
            episode_end=step.episode_end,
            new_task=torch.tensor([new_task]),
            next_obs=step.next_obs,
            noise=torch.zeros(1, noise_size),
        )
        action = agent.act(step.obs)
        yield {input_name(name): value for name, value in vars(inputs).items()}, action
