"""Exporting a run's learner: capture its graphs, write the files, compare them with the learner, then keep them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.exporting.files import OnnxFile, ProgramFile
from experiments.exporting.graphs import (
    Graph,
    adaptation_graph,
    captured,
    imported_for_export,
    part_graph,
    quietly,
    save_onnx,
    step_graph,
)
from experiments.exporting.metadata import metadata_of, signature
from experiments.exporting.parity import Parity, Run, check_function, check_parity
from experiments.exporting.predictors import check_predictions, metadata_of_predictor, predict_graph
from metarl.deployment import Deploys, DeploysAdaptation, DeploysParts
from metarl.errors import UserError
from metarl.fewshot.episode import FewShotFamily
from metarl.trainer import Trainer

OPSET = 18  # torch's exporter writes this one itself; it converts to the others


@dataclass(frozen=True)
class Part:
    """The files of one graph, and how far they are from the learner."""

    onnx: Path
    program: Path
    metadata: Path
    parity: Parity

    def copied(self, folder: Path) -> Part:
        """The same files in another folder.

        Raises:
            OSError: when the disk refuses them.
        """
        onnx, program, metadata = (Path(shutil.copy(file, folder)) for file in (self.onnx, self.program, self.metadata))
        return Part(onnx, program, metadata, self.parity)


@dataclass(frozen=True)
class _ToExport:
    """A graph, its metadata, and what compares a file of it with the learner."""

    graph: Graph
    metadata: dict[str, Any]
    check: Callable[[Run], Parity]


def export(
    trainer: Trainer, out: Path, *, opset: int = OPSET, curve: Mapping[str, Any] | None = None
) -> tuple[Part, ...]:
    """Write an agent's step.onnx, step.pt2 and step.json into the folder `out`, which is made, and likewise adapt.* of
    agents that adapt after blocks of episodes, the parts of a step that can run apart, or the predict.* of a few-shot
    learner.

    curve: the evaluation of the run, for the metadata.

    Raises:
        UserError: when the learner or a package cannot be exported, a file differs from the learner, or the disk
            refuses; files of an earlier export are left as they were.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        imported_for_export(package)
    is_predictor = isinstance(trainer.family, FewShotFamily)
    wanted = [_predictor(trainer, curve)] if is_predictor else _agent(trainer, curve)
    with tempfile.TemporaryDirectory() as folder:
        parts = [_written(one, Path(folder), opset) for one in wanted]
        try:
            out.mkdir(parents=True, exist_ok=True)
            return tuple(part.copied(out) for part in parts)
        except OSError as error:
            raise UserError(f"cannot write into {out}: {error.strerror or error}") from error


def _agent(trainer: Trainer, curve: Mapping[str, Any] | None) -> list[_ToExport]:
    """The graphs of an agent.

    Raises:
        UserError: when it does not describe its step.
    """
    agent, family = trainer.agent, trainer.family
    if not isinstance(agent, Deploys):
        raise UserError(f"{trainer.agent_name} cannot be exported: {type(agent).__name__} has no method `deployed`")
    step = agent.deployed(trainer.num_points * family.horizon)
    graph = step_graph(step, family.observation_space, family.action_space)
    metadata = metadata_of(trainer, graph, step.max_items, curve)
    wanted = [_ToExport(graph, metadata, partial(check_parity, trainer, graph, max_items=step.max_items))]
    named = {name: metadata[name] for name in ("format", "agent", "family", "iteration", "versions")}

    def add(graph: Graph, unit: str) -> None:
        check = partial(check_function, graph, unit=unit)
        wanted.append(_ToExport(graph, {**named, **signature(graph)}, check))

    if isinstance(agent, DeploysAdaptation):
        num_steps = (trainer.agent.block or 1) * family.horizon
        add(adaptation_graph(agent.deployed_adaptation(num_steps), step.initial), "block")
    for part in agent.deployed_parts() if isinstance(agent, DeploysParts) else ():
        add(part_graph(part, family.observation_space, family.action_space), "input")
    return wanted


def _predictor(trainer: Trainer, curve: Mapping[str, Any] | None) -> _ToExport:
    """The graph of a few-shot learner."""
    graph = predict_graph(trainer)
    metadata = metadata_of_predictor(trainer, graph, curve)
    return _ToExport(graph, metadata, partial(check_predictions, trainer, graph))


def _written(wanted: _ToExport, folder: Path, opset: int) -> Part:
    """The files of a graph, which do what the learner does.

    Raises:
        UserError: when they cannot be written, or do something else.
    """
    graph = wanted.graph
    onnx, program, text = (folder / f"{graph.name}{suffix}" for suffix in (".onnx", ".pt2", ".json"))
    try:
        exported = captured(graph)
    except Exception as error:  # whatever torch's tracing raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{graph.name} cannot be captured as a graph: {lines[0]}") from error
    save_onnx(exported, graph, onnx, wanted.metadata, opset)
    with quietly():
        torch.export.save(exported, program)
    parity = wanted.check(OnnxFile(onnx))
    with quietly():
        wanted.check(ProgramFile(program, graph.outputs))
    text.write_text(json.dumps({**wanted.metadata, "parity": vars(parity)}, indent=2) + "\n", encoding="utf-8")
    return Part(onnx, program, text, parity)
