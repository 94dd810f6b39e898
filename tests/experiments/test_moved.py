"""Runs made when a class stood in another module, or had other fields, are read as what they were."""

from pathlib import Path
from typing import Any

import pytest

from agents.rl2 import RL2Config
from envs.locomotion.ant import AntGoal
from envs.locomotion.half_cheetah import HalfCheetahVel
from envs.locomotion.ranges import Disc, Multiplier
from envs.locomotion.swimmer import SwimmerVel
from envs.locomotion.walkers import HopperRandParams
from envs.samplers import Range
from envs.wrappers import TimeAware
from experiments import Experiment
from experiments.cli.commands.train import main as train
from experiments.experiment.definition import _class_of, from_config, load, to_config
from experiments.experiment.overrides import with_overrides
from metarl.errors import UserError
from metarl.fewshot.catalog import LEARNERS
from metarl.trainer import TrainConfig

FORMER = {  # the catalog before every method had a file of its own
    "maml": "metarl.fewshot.learners:MAMLConfig",
    "fomaml": "metarl.fewshot.learners:FOMAMLConfig",
    "reptile": "metarl.fewshot.reptile:ReptileConfig",
    "meta_sgd": "metarl.fewshot.learners:MetaSGDConfig",
    "maml_plus_plus": "metarl.fewshot.learners:MAMLPlusPlusConfig",
    "anil": "metarl.fewshot.learners:ANILConfig",
    "imaml": "metarl.fewshot.learners:IMAMLConfig",
    "t_net": "metarl.fewshot.t_net:TNetConfig",
    "reptile_lora": "metarl.fewshot.lora:ReptileLoRAConfig",
    "meta_networks": "metarl.fewshot.meta_networks:MetaNetworkConfig",
    "meta_learner_lstm": "metarl.fewshot.meta_learner_lstm:MetaLearnerLSTMConfig",
    "learned_optimizer": "metarl.fewshot.learned_optimizer:LearnedOptimizerConfig",
    "cnp": "metarl.fewshot.neural_processes:CNPConfig",
    "np": "metarl.fewshot.neural_processes:NPConfig",
    "prototypical": "metarl.fewshot.metric_learners:PrototypicalConfig",
    "matching": "metarl.fewshot.metric_learners:MatchingConfig",
    "relation": "metarl.fewshot.metric_learners:RelationConfig",
    "siamese": "metarl.fewshot.metric_learners:SiameseConfig",
    "meta_opt_net": "metarl.fewshot.metric_learners:MetaOptNetConfig",
    "film": "metarl.fewshot.hypernetworks:FilmConfig",
    "hypernetwork": "metarl.fewshot.hypernetworks:HypernetworkConfig",
    "versa": "metarl.fewshot.bayesian:VersaConfig",
    "gaussian_prototypes": "metarl.fewshot.bayesian:GaussianPrototypesConfig",
    "laplace": "metarl.fewshot.bayesian:LaplaceConfig",
    "snail": "metarl.fewshot.sequence_learners:SnailLearnerConfig",
    "transformer": "metarl.fewshot.sequence_learners:TransformerLearnerConfig",
    "mann": "metarl.fewshot.sequence_learners:MANNConfig",
    "lstm": "metarl.fewshot.sequence_learners:LSTMConfig",
}


NEW = {"image_cnp"}  # learners that never had another path


@pytest.mark.parametrize("name", FORMER)
def test_a_learner_is_found_by_the_path_that_it_had(name):
    found = _class_of("agent", FORMER[name], lambda: pytest.fail("a recipe was asked for"), Path("a_run"))
    assert f"{found.__module__}:{found.__qualname__}" == LEARNERS[name]


def test_every_learner_that_had_another_path_is_tried():
    assert FORMER.keys() | NEW == LEARNERS.keys()


def test_runs_made_before_ranges_were_samplers_are_read_as_what_they_were():
    former: dict[str, tuple[dict[str, Any], Any]] = {
        "envs.locomotion.half_cheetah:HalfCheetahVel": (
            {"horizon": 50, "max_velocity": 2.0, "ood": "interpolation"},
            HalfCheetahVel(horizon=50, velocity=Range(0.0, 2.0, ood="interpolation")),
        ),
        "envs.locomotion.swimmer:SwimmerVel": (
            {"min_velocity": 0.05, "max_velocity": 0.3, "ood": "extrapolation"},
            SwimmerVel(velocity=Range(0.05, 0.3)),
        ),
        "envs.locomotion.ant:AntGoal": ({"radius": 2.0, "ood": "extrapolation"}, AntGoal(goal=Disc(2.0))),
        "envs.locomotion.walkers:HopperRandParams": (
            {"log_scale_limit": 2.0, "ood": "extrapolation"},
            HopperRandParams(
                body_mass=Multiplier(1.5, 2.0),
                body_inertia=Multiplier(1.5, 2.0),
                dof_damping=Multiplier(1.3, 2.0),
                geom_friction=Multiplier(1.5, 2.0),
            ),
        ),
    }
    for path, (fields, expected) in former.items():
        config = to_config(
            Experiment(HalfCheetahVel(), RL2Config(), TrainConfig(num_iterations=1, num_tasks=1)),
            "half_cheetah_vel/rl2",
        )
        read = from_config({**config, "family": {"class": path, **fields}}, Path("a_run"))
        assert read.family == expected


def test_so_are_those_of_robots_inside_a_wrapper():
    recipe = Experiment(TimeAware(HalfCheetahVel()), RL2Config(), TrainConfig(num_iterations=1, num_tasks=1))
    config = to_config(recipe, "mine.py")
    config["family"]["family"] = {"max_velocity": 2.0, "ood": "interpolation"}
    read = from_config(config, Path("a_run"), lambda: recipe)
    assert read.family == TimeAware(HalfCheetahVel(velocity=Range(0.0, 2.0, ood="interpolation")))


@pytest.mark.parametrize(
    ("option", "now"),
    [
        ("family.max_velocity", "family.velocity.high"),
        ("family.ood", "family.velocity.ood"),
        ("agent.target_share", "agent.tau"),
    ],
)
def test_an_option_of_an_earlier_version_is_answered_with_its_new_name(option: str, now: str):
    with pytest.raises(UserError, match=f"{option} is not a field: it is now {now}"):
        with_overrides(load("half_cheetah_vel/pearl"), {option: 1})
    flag, new_flag = (f"--{name.replace('_', '-')}" for name in (option, now))
    with pytest.raises(UserError, match=f"unknown option {flag}; it is now {new_flag}"):
        train(["half_cheetah_vel/pearl", flag, "1"])
