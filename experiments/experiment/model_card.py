"""The model card of a packed agent, in Markdown: where it comes from, what it scores, what it is for and is not.

Mitchell et al. Model cards for model reporting (2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from experiments.experiment.names import described
from metarl.evaluation import Evaluation, Score

_SPLITS = {
    "train": "training tasks",
    "val": "validation tasks",
    "test": "test tasks",
    "ood": "tasks outside the training range",
}


def model_card(
    archive: str, config: Mapping[str, Any], meta: Mapping[str, Any], evaluations: Mapping[str, Evaluation]
) -> str:
    """The card of an agent with this config.json and meta.json, evaluated on these splits.

    archive: its file's name.
    """
    name, packed = config["experiment"], meta["packed"]
    first = evaluations["test"]
    description = described("experiments").get(name, "")
    parts = [
        f"# {name}",
        *([description] if description else []),
        f"A trained agent of MetaRL: {first.agent} on {first.family}. Its archive holds settings, scores and tensors, "
        "and no code.",
        f"    metarl evaluate {archive}{' --recipe RECIPE.py' if packed['needs_recipe'] else ''}",
        _table(["", ""], _origin(config, meta)),
        "## Scores",
        _about_scores(first, packed),
        _table(*_scores(evaluations)),
        "## Intended use",
        _intended_use(first),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(config, packed, evaluations)),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(config: Mapping[str, Any], meta: Mapping[str, Any]) -> list[list[str]]:
    packed, versions = meta["packed"], meta.get("versions") or {}
    git, bits = meta.get("git") or {}, meta.get("same_bits_with") or {}
    changed = ", with changes" if git.get("changed") else ""
    of_packages = [f"{name} {versions[name]}" for name in ("python", "metarl", "torch") if name in versions]
    return [
        ["licence", packed["licence"] or "none given: ask whoever gave you this file"],
        ["made by", f"`{meta.get('command', 'unknown')}`"],
        ["commit of MetaRL", f"{git.get('commit', 'unknown')}{changed}"],
        ["versions", ", ".join(of_packages)],
        ["training seed", str(config["seed"])],
        ["checkpoint", f"{packed['checkpoint']}, of iteration {packed['iteration']:,}"],
        ["experience", f"{packed['num_samples']:,} {packed['unit']}"],
        ["time of training", f"{packed['seconds'] / 60:.1f} min on {bits.get('processor', 'an unknown processor')}"],
        ["size", f"{packed['parameters']:,} numbers"],
    ]


def _about_scores(evaluation: Evaluation, packed: Mapping[str, Any]) -> str:
    measure = evaluation.measure
    better = "higher" if measure.higher_is_better else "lower"
    return (
        f"The mean {measure.name} ({better} is better) of this checkpoint on {evaluation.num_tasks:,} tasks of each "
        f"split, with its 95 % interval over tasks; evaluation seed {packed['evaluation_seed']}. The gain is that of "
        f"the last {measure.point} over the first, in the same tasks."
    )


def _scores(evaluations: Mapping[str, Evaluation]) -> tuple[list[str], list[list[str]]]:
    first = evaluations["test"]
    measure, last = first.measure, len(first.points) - 1 + first.measure.first
    bounds = sorted({name for evaluation in evaluations.values() for name in evaluation.bounds})
    names = [f"{measure.point} {measure.first}", f"{measure.point} {last}", "gain"]
    columns = ["split", *names, *(f"{name.replace('_', '-')}, {measure.point} {last}" for name in bounds)]
    rows = [
        [
            _SPLITS[split],
            _score(evaluation.points[0]),
            _score(evaluation.points[-1]),
            "" if evaluation.gain is None else _score(evaluation.gain),
            *(f"{evaluation.bounds[name][-1]:.4g}" if name in evaluation.bounds else "" for name in bounds),
        ]
        for split, evaluation in evaluations.items()
    ]
    return columns, rows


def _score(score: Score) -> str:
    if not math.isfinite(score.mean):
        return "not finite: it diverges on some tasks"
    return f"{score.mean:.4g} ({score.ci95[0]:.4g} to {score.ci95[1]:.4g})"


def _intended_use(evaluation: Evaluation) -> str:
    doing = "Acting" if evaluation.measure.name == "return" else "Predicting"
    return (
        f"{doing} in unseen tasks of the family {evaluation.family}, with the settings in config.json, to see and to "
        "measure adaptation: in teaching, as a baseline, and as a start for further meta-training "
        "(`metarl train EXPERIMENT --from ARCHIVE`)."
    )


def _limits(config: Mapping[str, Any], packed: Mapping[str, Any], evaluations: Mapping[str, Evaluation]) -> list[str]:
    limits = [
        f"One training run, of seed {config['seed']}; other seeds give other scores.",
        "It knows the distribution of tasks that it was trained on; nothing is claimed for any other.",
        "Without the states of optimisers and random streams: training cannot be resumed exactly.",
    ]
    if "ood" in evaluations:
        limits.insert(2, "Outside the training range expect the scores in the last row, not those above it.")
    if evaluations["test"].measure.name == "return":
        limits.append("Trained and measured in simulation only.")
    if packed["needs_recipe"]:
        limits.append(f"The recipe {config['experiment']} is needed, and is not in the archive: it is code.")
    return limits


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
