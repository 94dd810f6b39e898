"""Graphs with state in and state out: a function of named tensors, written as ONNX and as a torch.export program.

torch captures the function as an ATen graph, and its exporter translates that. A GRU or LSTM is therefore written as
matrix products and gates, never as ONNX's own recurrent operators, whose conventions differ.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from experiments.exporting.replaced import REPLACED
from metarl.deployment import DeployedAdaptation, DeployedAgent, DeployedPart, StepInputs, where
from metarl.errors import UserError
from metarl.records import Record

METADATA = "metarl"  # the key of the metadata in an ONNX file
NEXT = "next."  # prefix of the outputs that are the state for the next step
STATE = "state."  # prefix of the inputs that are the state

_MEANINGS = {
    "obs": "the observation to act on",
    "previous_action": "the previous action, as it was carried out; not read at the first step in a task",
    "reward": "the reward of the previous action; not read at the first step in a task",
    "episode_end": "whether the previous action ended an episode; not read at the first step in a task",
    "new_task": "whether this is the first step in a task: true clears the state; false at the start of other episodes",
    "next_obs": "what the previous action led to; differs from obs only where an episode ended",
    "noise": "standard normal numbers to explore by: a posterior sample's, or an action's; zeros for no exploration",
}

_ROWS = 2  # in the example from which a graph is captured; torch treats sizes 0 and 1 as constants
_NOISY = (  # loggers that warn of packages that are not needed, and of numbers that a graph no longer has
    "torch.onnx._internal.exporter._registration",
    "torch._export.serde.serialize",
)


@dataclass(frozen=True)
class Graph:
    """A function of named tensors."""

    name: str
    function: Callable[..., tuple[Tensor, ...]]  # takes the inputs in order and returns the outputs in order
    inputs: dict[str, Tensor]  # an example of each input
    outputs: tuple[str, ...]
    meanings: Mapping[str, str]  # what the inputs are, by name; those of the state may be left out
    has_rows: bool = True  # whether the examples have 2 rows, of which there may be any number; else shapes are fixed

    @property
    def state(self) -> dict[str, str]:
        """The inputs that are given back at the next step, each with the output that it is given."""
        return {name: f"{NEXT}{name}" for name in self.inputs if f"{NEXT}{name}" in self.outputs}


def step_graph(agent: DeployedAgent, observation_space: spaces.Box, action_space: spaces.Space[Any]) -> Graph:
    """The graph of an agent's step; where `new_task` is true, it forgets its state and every input except `obs`."""
    form, leaves = pytree.tree_structure(agent.initial), dict(named_tensors(agent.initial))
    example = _example_inputs(observation_space, action_space, agent.noise_size)
    read = [field.name for field in fields(StepInputs) if field.name in ("obs", "new_task", *agent.reads)]
    kept = [name for name, leaf in leaves.items() if leaf.numel()]  # an empty state is no input

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(read, tensors, strict=False))
        rows, new_task = given["obs"].shape[0], given["new_task"]  # len() would make the number a constant
        for name, like in vars(example).items():
            if name not in given:  # it is not read, and costs nothing in the graph
                given[name] = like.new_zeros(rows, *like.shape[1:])
        given["reward"] = torch.where(new_task, 0.0, given["reward"])
        given["episode_end"] = given["episode_end"] & ~new_task
        passed = dict(zip(kept, tensors[len(read) :], strict=True))
        empty = {name: leaf.new_zeros(rows, *leaf.shape[1:]) for name, leaf in leaves.items() if name not in passed}
        state = pytree.tree_unflatten([(passed | empty)[name] for name in leaves], form)
        action, state = agent.step(where(new_task, agent.initial, state), StepInputs(**given))
        following = dict(named_tensors(state))
        return (action, *(following[name] for name in kept))

    state = {f"{STATE}{name}": leaves[name].detach().repeat(_ROWS, *[1] * (leaves[name].ndim - 1)) for name in kept}
    inputs = {input_name(name): getattr(example, name) for name in read}
    outputs = ("action", *(f"{NEXT}{name}" for name in state))
    return Graph("step", step, inputs | state, outputs, {name: _MEANINGS[name] for name in inputs})


def adaptation_graph(adaptation: DeployedAdaptation, initial: Any) -> Graph:
    """The graph of an adaptation to a block of episodes, of an agent whose steps start with this state."""
    names, leaves = zip(*named_tensors(initial), strict=True)
    form = pytree.tree_structure(initial)

    def adapt(*tensors: Tensor) -> tuple[Tensor, ...]:
        state = pytree.tree_unflatten(list(tensors[: len(names)]), form)
        given = dict(zip(adaptation.inputs, tensors[len(names) :], strict=True))
        return tuple(pytree.tree_leaves(adaptation.adapt(state, **given)))

    state = {f"{STATE}{name}": leaf.detach().clone() for name, leaf in zip(names, leaves, strict=True)}
    outputs = tuple(f"{NEXT}{name}" for name in state)
    return Graph("adapt", adapt, state | adaptation.inputs, outputs, adaptation.meanings, has_rows=False)


def part_graph(part: DeployedPart, observation_space: spaces.Box, action_space: spaces.Space[Any]) -> Graph:
    """The graph of a part of an agent's step; the state that it reads has the names of the step's own."""
    example, leaves = _example_inputs(observation_space, action_space, part.noise_size), dict(named_tensors(part.state))
    form, names = pytree.tree_structure(part.state), list(part.reads)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        state = pytree.tree_unflatten(list(tensors[len(names) :]), form)
        action, following = part.function(state, dict(zip(names, tensors, strict=False)))
        return (*(() if action is None else (action,)), *(() if following is None else pytree.tree_leaves(following)))

    state = {f"{STATE}{name}": leaf.detach().repeat(_ROWS, *[1] * (leaf.ndim - 1)) for name, leaf in leaves.items()}
    inputs = {name: getattr(example, name) for name in names} | state
    with torch.no_grad():
        action, following = part.function(part.state, {name: inputs[name][:1] for name in names})
    outputs = (*(() if action is None else ("action",)), *(() if following is None else (f"{NEXT}{n}" for n in state)))
    return Graph(part.name, run, inputs, outputs, part.reads)


def input_name(field: str) -> str:
    """The name of a graph's input for a field of `StepInputs`; the output is called "action"."""
    return "previous_action" if field == "action" else field


def named_tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested records, dicts and tuples with dotted names, in the order of their pytree."""
    if isinstance(value, Tensor):
        yield prefix, value
        return
    inner: Mapping[Any, Any] = (
        vars(value) if isinstance(value, Record) else value if isinstance(value, dict) else dict(enumerate(value))
    )
    for name, part in inner.items():
        if part is not None:
            yield from named_tensors(part, f"{prefix}.{name}" if prefix else str(name))


def _example_inputs(observation_space: spaces.Box, action_space: spaces.Space[Any], noise_size: int) -> StepInputs:
    obs = torch.zeros(_ROWS, *(observation_space.shape or ()))
    is_discrete = isinstance(action_space, spaces.Discrete)
    no = torch.zeros(_ROWS, dtype=torch.bool)
    return StepInputs(  # tensors of their own: torch.export takes one that is given twice for one input
        obs=obs,
        action=torch.zeros(_ROWS, *(action_space.shape or ()), dtype=torch.int64 if is_discrete else torch.float32),
        reward=torch.zeros(_ROWS),
        episode_end=no,
        new_task=no.clone(),
        next_obs=obs.clone(),
        noise=torch.zeros(_ROWS, noise_size),
    )


class _Module(nn.Module):
    """A graph's function as the module that torch.export wants."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.function(*tensors)


def captured(graph: Graph) -> torch.export.ExportedProgram:
    """The graph as a torch.export program; rows may be any number from one on.

    Functions of fixed shapes are traced first, down to the operations of the gradients that they take.
    """
    rows = {0: torch.export.Dim.DYNAMIC}
    with quietly(), torch.no_grad():
        inputs = tuple(graph.inputs.values())
        if not graph.has_rows:
            with torch.backends.mkldnn.flags(enabled=False):  # its LSTM is a single operation
                traced = make_fx(graph.function, tracing_mode="real", _error_on_data_dependent_ops=False)(*inputs)
            return torch.export.export(traced, inputs, strict=False)
        shapes = (tuple(rows for _ in inputs),)
        return torch.export.export(_Module(graph.function).eval(), inputs, dynamic_shapes=shapes, strict=False)


def save_onnx(
    program: torch.export.ExportedProgram, graph: Graph, path: Path, metadata: Mapping[str, Any], opset: int
) -> None:
    """Write a captured graph as ONNX, with its metadata in it.

    Raises:
        UserError: when a package is missing, or torch cannot express the graph in this opset.
    """
    onnx = imported_for_export("onnx")
    imported_for_export("onnxscript")
    names: dict[str, Any] = {"input_names": list(graph.inputs), "output_names": list(graph.outputs)}
    try:
        with quietly():
            if any(node.target in REPLACED for node in program.graph.nodes):
                program = program.run_decompositions(REPLACED)
            written = torch.onnx.export(program, (), dynamo=True, verbose=False, opset_version=opset, **names)
    except Exception as error:  # whatever torch's exporter raises
        raise UserError(f"{graph.name} cannot be written as ONNX with opset {opset}: {_reason(error)}") from error
    assert written is not None
    model = written.model_proto
    _tidy(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(metadata)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _reason(error: BaseException) -> str:
    """The operation that ONNX lacks, or else the first line of an error of torch's exporter."""
    cause: BaseException | None = error
    while cause is not None:
        if found := re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(cause)):
            return f"it has no operation for torch's {found[1]}"
        cause = cause.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(chr(27))[0]


def _tidy(model: Any) -> None:
    """Remove where in whose files each operation comes from, and name the free axis."""
    model.graph.doc_string = ""
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.value_info, *model.graph.input):
        part.doc_string = ""
        del part.metadata_props[:]
    for value in model.graph.output:
        del value.metadata_props[:]
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim
        if first and first[0].dim_param:
            first[0].dim_param = "rows"


def imported_for_export(package: str) -> Any:
    """An optional package.

    Raises:
        UserError: when it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"export needs {package}, which is not installed: pip install 'metarl[export]'") from error


@contextmanager
def quietly() -> Iterator[None]:
    """torch's exporters warn of their own parts and of packages that these graphs do not need."""
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
