"""Settings as JSON, and back; values that JSON cannot hold (functions) stay in the recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from envs.catalog import FAMILIES, FORMER_FIELDS
from experiments.experiment.names import suggestion
from metarl._lazy import imported
from metarl.errors import UserError

# The modules that hold the classes of families and agents now, by those that held them when earlier runs were made; by
# module:Class where one module's classes went to several.
MOVED = {
    "envs.bandits": "envs.torch_families.bandits",
    "envs.tabular": "envs.torch_families.tabular",
    "envs.gridworld": "envs.torch_families.gridworld",
    "envs.navigation": "envs.torch_families.navigation",
    "envs.mujoco_family": "envs.locomotion.custom_robot",
    "envs.gymnasium_family": "envs.external.gymnasium_family",
    "metarl.fewshot.bayesian:GaussianPrototypesConfig": "metarl.fewshot.methods.gaussian_prototypes",
    "metarl.fewshot.bayesian:LaplaceConfig": "metarl.fewshot.methods.laplace",
    "metarl.fewshot.bayesian:VersaConfig": "metarl.fewshot.methods.versa",
    "metarl.fewshot.hypernetworks:FilmConfig": "metarl.fewshot.methods.film",
    "metarl.fewshot.hypernetworks:HypernetworkConfig": "metarl.fewshot.methods.hypernetwork",
    "metarl.fewshot.learned_optimizer": "metarl.fewshot.methods.learned_optimizer",
    "metarl.fewshot.learners:ANILConfig": "metarl.fewshot.methods.anil",
    "metarl.fewshot.learners:FOMAMLConfig": "metarl.fewshot.methods.maml",
    "metarl.fewshot.learners:IMAMLConfig": "metarl.fewshot.methods.imaml",
    "metarl.fewshot.learners:MAMLConfig": "metarl.fewshot.methods.maml",
    "metarl.fewshot.learners:MAMLPlusPlusConfig": "metarl.fewshot.methods.maml_plus_plus",
    "metarl.fewshot.learners:MetaSGDConfig": "metarl.fewshot.methods.meta_sgd",
    "metarl.fewshot.lora": "metarl.fewshot.methods.reptile_lora",
    "metarl.fewshot.meta_learner_lstm": "metarl.fewshot.methods.meta_learner_lstm",
    "metarl.fewshot.meta_networks": "metarl.fewshot.methods.meta_networks",
    "metarl.fewshot.metric_learners:MatchingConfig": "metarl.fewshot.methods.matching",
    "metarl.fewshot.metric_learners:MetaOptNetConfig": "metarl.fewshot.methods.meta_opt_net",
    "metarl.fewshot.metric_learners:PrototypicalConfig": "metarl.fewshot.methods.prototypical",
    "metarl.fewshot.metric_learners:RelationConfig": "metarl.fewshot.methods.relation",
    "metarl.fewshot.metric_learners:SiameseConfig": "metarl.fewshot.methods.siamese",
    "metarl.fewshot.neural_processes": "metarl.fewshot.methods.neural_processes",
    "metarl.fewshot.reptile": "metarl.fewshot.methods.reptile",
    "metarl.fewshot.sequence_learners:LSTMConfig": "metarl.fewshot.methods.lstm",
    "metarl.fewshot.sequence_learners:MANNConfig": "metarl.fewshot.methods.mann",
    "metarl.fewshot.sequence_learners:SnailLearnerConfig": "metarl.fewshot.methods.snail",
    "metarl.fewshot.sequence_learners:TransformerLearnerConfig": "metarl.fewshot.methods.transformer",
    "metarl.fewshot.t_net": "metarl.fewshot.methods.t_net",
}

RETIRED: dict[str, dict[str, tuple[Any, ...] | None]] = {
    # Fields that earlier runs' classes had: the values that had no effect, or None where every value had no effect.
    "agents.maml:MAMLTRPOConfig": {
        "outer": ("trust_region",),
        "outer_lr": None,
        "num_epochs": None,
        "clip": None,
        "max_grad_norm": (None,),
        "kl_penalty": (0.0,),
        "target_kl": (None,),
    },
    "agents.promp:ProMPConfig": {
        "outer": ("clipped",),
        "max_kl": None,
        "num_cg_steps": None,
        "cg_damping": None,
        "curvature_stride": None,
        "max_backtracks": None,
        "backtrack_ratio": None,
    },
    "metarl.fewshot.methods.t_net:TNetConfig": {"step_sizes": ("fixed",), "adapted": ("all",)},
    "metarl.fewshot.methods.imaml:IMAMLConfig": {
        "step_sizes": ("fixed",),
        "adapted": ("all",),
        "first_order": (False,),
        "first_order_share": (0.0,),
        "multi_step_share": (0.0,),
    },
}

RENAMED: dict[str, dict[str, str]] = {  # new names of fields, by class and the name in earlier runs
    "agents.pearl:PEARLConfig": {"target_share": "tau"},
    "metarl.fewshot.methods.siamese:SiameseConfig": {"likeness": "similarity"},
    "metarl.source:TrainConfig": {"num_episodes": "num_points"},
    "experiments.experiment.definition:Expected": {"episode": "point"},
}

# The same for fields that are in a sampler now, as dotted names; one value may have gone to several samplers.
IN_SAMPLERS = {FAMILIES[name]: former for name, former in FORMER_FIELDS.items()}

OF_RECIPE = "of_recipe"  # the key under which the names of what was left out stand


def current(path: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A part's fields as its class has them now: under new names, without retired ones that had no effect.

    path: the class's module:Class now. A retired field with another value stays, to be refused.
    """
    if path == "agents.rl2:RL2Config":
        values = _with_one_memory(values)
    retired = RETIRED.get(path, {})

    def had_no_effect(name: str, value: Any) -> bool:
        if name not in retired:
            return False
        allowed = retired[name]
        return allowed is None or value in allowed

    result: dict[str, Any] = {}
    for name, value in values.items():
        if had_no_effect(name, value):
            continue
        places = names_now(path, name)
        if not places:
            result[name] = value
        for place in places:
            field, _, inside = place.partition(".")
            if inside:  # of a sampler, whose other fields are the class's default
                value_now = {**(result.get(field) or to_json(getattr(imported(path), field))), inside: value}
            else:
                value_now = value
            result[field] = value_now
    return result


def class_path(value: Any) -> str:
    """The module:Class of a value."""
    return f"{type(value).__module__}:{type(value).__qualname__}"


def names_now(path: str, name: str) -> tuple[str, ...]:
    """The dotted names of a field that a class, given as module:Class, had in earlier versions; () for any other."""
    renamed = RENAMED.get(path, {}).get(name)
    return (renamed,) if renamed else IN_SAMPLERS.get(path, {}).get(name, ())


def option_now(settings: Any, name: str) -> str:
    """The names that a field of an earlier version has now, such as "family.velocity.high"; "" for any other.

    name: its dotted name in `settings`.
    """
    *path, last = name.split(".")
    for part in path:
        settings = getattr(settings, part, None)
    return ", ".join(".".join((*path, now)) for now in names_now(class_path(settings), last))


def _with_one_memory(values: Mapping[str, Any]) -> dict[str, Any]:
    """RL2's fields, the settings of its memory under `memory`, where earlier runs named its kind."""
    values = dict(values)
    kind = values.get("memory")
    if not isinstance(kind, str):
        return values
    of_kinds = {name: values.pop(name, {}) for name in ("snail", "transformer")}
    span = values.pop("memory_span", None)
    values["memory"] = of_kinds.get(kind, {"cell": kind, "span": span})
    return values


def to_json(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON values; under "of_recipe", the paths of what only Python can hold.

    That is a function, for one, and the class of a part whose field may hold any, such as a family around a family; the
    fields of such a part are written.
    """
    left_out: list[str] = []
    values = _to_json(settings, "", False, left_out)
    return {**values, OF_RECIPE: left_out} if left_out else values


def _to_json(value: Any, path: str, any_class: bool, left_out: list[str]) -> Any:
    """A JSON value; what has none is left out of the mapping that it stands in, and its path noted.

    any_class: whether the type of the field that the value is in leaves its class open.
    """
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, (list, tuple)):
        return [_to_json(item, f"{path}[{index}]", any_class, left_out) for index, item in enumerate(value)]
    open_fields: set[str] = set()
    if is_dataclass(value):
        if any_class:
            left_out.append(path)
        open_fields = {field.name for field in fields(value) if re.search(r"\bAny\b", str(field.type))}
        value = {field.name: getattr(value, field.name) for field in fields(value)}
        any_class = False
    if isinstance(value, Mapping):
        values = {}
        for name, item in value.items():
            inside = f"{path}.{name}" if path else str(name)
            if _is_json(item):
                values[name] = _to_json(item, inside, any_class or name in open_fields, left_out)
            else:
                left_out.append(inside)
        return values
    return value


def _is_json(value: Any) -> bool:
    """Whether JSON can hold a value, or a part of it."""
    if value is None or isinstance(value, (bool, int, float, str, Path, Mapping)):
        return True
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    return is_dataclass(value) and not isinstance(value, type)


def merged(of_recipe: Any, values: Any, where: str) -> Any:
    """A recipe's value with everything that `values`, as read from JSON, says otherwise.

    Raises:
        UserError: for an unknown name or a value of another kind than the recipe's; `where` begins its name.
    """
    if is_dataclass(of_recipe) or isinstance(of_recipe, Mapping):
        parts = of_recipe if isinstance(of_recipe, Mapping) else _fields(of_recipe)
        if not isinstance(values, dict):
            raise UserError(f"{where} is {values!r}: must be an object")
        if is_dataclass(of_recipe):
            values = current(class_path(of_recipe), values)
        for name in values:
            if name not in parts:
                raise UserError(f"{where}.{name} is not in the recipe: {suggestion(name, parts)}")
            if values[name] is None and not (parts[name] is None or name in _optional(of_recipe)):
                raise UserError(f"{where}.{name} is None: it must be of the kind that the recipe has there")
        changed = {name: merged(parts[name], value, f"{where}.{name}") for name, value in values.items()}
        if isinstance(of_recipe, Mapping):
            return {**of_recipe, **changed}
        try:
            return replace(of_recipe, **changed)  # pyright: ignore[reportArgumentType], an instance
        except (ValueError, TypeError) as error:
            raise UserError(f"{where}: {error}") from error
    if isinstance(of_recipe, Path) and isinstance(values, str):
        return Path(values)
    if isinstance(of_recipe, (list, tuple)) and isinstance(values, list):
        return type(of_recipe)(values)
    kinds = (int, float) if isinstance(of_recipe, float) else type(of_recipe)
    if of_recipe is None or values is None or (isinstance(values, kinds) and not _bool_for_number(of_recipe, values)):
        return values
    raise UserError(f"{where} is {values!r}: the recipe has {of_recipe!r} there")


def _fields(settings: Any) -> dict[str, Any]:
    """Fields of a dataclass with their values, a whole number as a float where that is the field's type."""
    parts = {field.name: getattr(settings, field.name) for field in fields(settings)}
    for field in fields(settings):
        if field.type in (float, "float") and isinstance(parts[field.name], int):
            parts[field.name] = float(parts[field.name])
    return parts


def _optional(settings: Any) -> set[str]:
    """The fields of a dataclass that may be None, by their annotations; nothing in a mapping may."""
    annotations = {field.name: str(field.type) for field in fields(settings)} if is_dataclass(settings) else {}
    return {name for name, annotation in annotations.items() if "None" in annotation or "Optional" in annotation}


def _bool_for_number(of_recipe: Any, value: Any) -> bool:
    return isinstance(value, bool) and not isinstance(of_recipe, bool)
