"""A few-shot learner as one graph: support and queries in, predictions out, with all of the adaptation in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from experiments.experiment.acting import Predictor
from experiments.experiment.config_json import to_json
from experiments.exporting.graphs import Graph
from experiments.exporting.metadata import signature
from experiments.exporting.parity import Parity, Run, compared
from metarl.errors import UserError
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.problem import Classification
from metarl.records import Examples
from metarl.run.provenance import versions
from metarl.trainer import Trainer

NUM_TASKS = 20  # test tasks on which a file is compared with the learner


def predict_graph(trainer: Trainer) -> Graph:
    """The graph of a learner's predictions, for supports and queries of the size of the family's test tasks.

    In classification, the support has one image of every class, in order, then another one of every class, and so on;
    so it needs no labels.

    Raises:
        UserError: for families whose tasks differ in size.
    """
    if trainer.family.varies:
        raise UserError(f"{trainer.family.name} cannot be exported: its tasks differ in size, and a graph's may not")
    predictor, inputs = Predictor(trainer), _inputs(next(_episodes(trainer, 1)))
    classes, labels = isinstance(predictor.problem, Classification), inputs["support_y"]
    blank = torch.zeros(1, len(inputs["query_x"]), *labels.shape[1:], dtype=labels.dtype)  # unknown
    num_points = predictor.points_of(labels[None])

    def predict(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(inputs, tensors, strict=True))
        targets = labels if classes else given["support_y"]
        support = Examples(given["support_x"][None], targets[None])
        episode = FewShotEpisode(support, Examples(given["query_x"][None], blank))
        return (predictor.learner.predictions(episode, num_points)[-1][0].detach(),)

    meanings = {"support_x": "the inputs of the examples", "query_x": "the inputs to predict for"}
    if classes:
        meanings["support_x"] = "the images of the examples: one of every class in order, then another one of each"
        del inputs["support_y"]
    else:
        meanings["support_y"] = "the targets of the examples"
    with torch.no_grad():
        predict(*inputs.values())  # what a learner computes once exists before the capture, so it is a constant there
    return Graph("predict", predict, inputs, ("prediction",), meanings, has_rows=False)


def metadata_of_predictor(trainer: Trainer, graph: Graph, curve: Mapping[str, Any] | None) -> dict[str, Any]:
    """The metadata of a learner's graph, as JSON values."""
    problem = trainer.source.problem  # pyright: ignore[reportAttributeAccessIssue], of few-shot sources
    return {
        "format": 1,
        "learner": trainer.agent_name,
        "family": trainer.family.name,
        "iteration": trainer.iteration,
        **signature(graph),
        "prediction": "a logit for each class, per query"
        if isinstance(problem, Classification)
        else "numbers per query",
        "ways": problem.ways if isinstance(problem, Classification) else None,
        "shots": trainer.family.shots,
        "family_settings": to_json(trainer.family),
        "versions": versions(),
        "adaptation_curve": curve,
    }


def check_predictions(trainer: Trainer, graph: Graph, run: Run) -> Parity:
    """Compare a file with the learner on test tasks.

    Raises:
        UserError: when a prediction differs by more than `TOLERANCE`; names the task.
    """
    worst = Parity(NUM_TASKS, 0.0, "no output", unit="task")
    for number, episode in enumerate(_episodes(trainer, NUM_TASKS)):
        given = {name: value for name, value in _inputs(episode).items() if name in graph.inputs}
        with torch.no_grad():
            expected = dict(zip(graph.outputs, graph.function(*given.values()), strict=True))
        worst = compared(worst, number, expected, run(given))
    return worst


def _episodes(trainer: Trainer, number: int) -> Any:
    family = trainer.family
    for index in range(number):
        generator = torch.Generator().manual_seed(index)
        yield family.episode(1, "test", shots=family.shots, queries=family.test_queries, generator=generator)


def _inputs(episode: FewShotEpisode) -> dict[str, Tensor]:
    """The support and the queries of one task."""
    return {"support_x": episode.support.x[0], "support_y": episode.support.y[0], "query_x": episode.query.x[0]}
