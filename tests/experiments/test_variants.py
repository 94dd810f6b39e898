"""Fields that hold one of several configurations: chosen by name, saved, and read from older runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agents.hypernetwork_policy import POLICIES, HypernetworkPolicyConfig
from agents.hyperx import HyperXConfig, NoBonus
from agents.memories import MEMORIES
from experiments.experiment.definition import from_config, load, to_config
from experiments.experiment.overrides import with_overrides
from experiments.experiment.variants import experiment_with_variants, with_variants
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.errors import UserError
from metarl.task_samplers.catalog import SAMPLERS
from metarl.task_samplers.curriculum import Curriculum, Stage
from metarl.task_samplers.plr import ACCELConfig
from metarl.task_samplers.roml import RoMLConfig
from metarl.task_samplers.sampler import UniformConfig

NAME = "bernoulli_bandit/rl2"
CURRICULUM = Curriculum([Stage(3, {"mean.0": (0.0, 0.5)}), Stage(9, {})])


@pytest.mark.parametrize(
    "memory", [*MEMORIES.values(), SnailConfig(length=9), RecurrentConfig("lstm", span=7)], ids=str
)
def test_each_memory_is_saved_and_read_back(memory):
    experiment = load(NAME)
    experiment = replace(experiment, agent=replace(experiment.agent, memory=memory))
    assert from_config(to_config(experiment, NAME), Path("run")) == experiment


@pytest.mark.parametrize("bonus", [NoBonus(), HyperXConfig(), HyperXConfig(novelty_weight=0.5)], ids=str)
@pytest.mark.parametrize("name", [NAME, "grid_navi/varibad"])
def test_each_bonus_is_saved_and_read_back(name, bonus):
    experiment = load(name)
    experiment = replace(experiment, agent=replace(experiment.agent, bonus=bonus))
    assert from_config(to_config(experiment, name), Path("run")) == experiment


@pytest.mark.parametrize("policy", [*POLICIES.values(), HypernetworkPolicyConfig("kaiming")], ids=str)
@pytest.mark.parametrize("name", [NAME, "grid_navi/varibad"])
def test_each_policy_is_saved_and_read_back(name, policy):
    experiment = load(name)
    experiment = replace(experiment, agent=replace(experiment.agent, policy=policy))
    assert from_config(to_config(experiment, name), Path("run")) == experiment


@pytest.mark.parametrize("sampler", [*SAMPLERS.values(), ACCELConfig(capacity=9), CURRICULUM], ids=str)
def test_each_sampler_is_saved_and_read_back(sampler):
    experiment = load(NAME)
    experiment = replace(experiment, train=replace(experiment.train, sampler=sampler))
    read = from_config(json.loads(json.dumps(to_config(experiment, NAME))), Path("run"))
    assert read == experiment
    assert type(read.train.sampler) is type(sampler)


def test_a_run_from_before_there_were_samplers_draws_uniformly():
    config = to_config(load(NAME), NAME)
    del config["train"]["sampler"]
    assert from_config(config, Path("run")).train.sampler == UniformConfig()


def test_a_command_line_chooses_variants_of_the_agent_and_of_the_training():
    words = ["--train.sampler", "roml", "--agent.memory=snail", "--train.sampler.tail", "0.1"]
    experiment, rest = experiment_with_variants(load(NAME), words)
    assert (experiment.agent.memory, experiment.train.sampler) == (SnailConfig(), RoMLConfig())
    assert rest == ["--train.sampler.tail", "0.1"]
    with pytest.raises(UserError, match=r"--train.sampler is 'romp': did you mean roml\?"):
        experiment_with_variants(load(NAME), ["--train.sampler", "romp"])


def test_a_command_line_chooses_a_variant_in_both_forms_and_keeps_the_rest():
    agent, rest = with_variants(
        load(NAME).agent, ["--seed", "3", "--agent.memory=snail", "--agent.gamma", "1"], "--agent"
    )
    assert agent.memory == SnailConfig()
    assert rest == ["--seed", "3", "--agent.gamma", "1"]
    agent, rest = with_variants(agent, ["--agent.memory", "lstm", "--agent.memory.span", "9"], "--agent")
    assert agent.memory == RecurrentConfig("lstm")
    assert rest == ["--agent.memory.span", "9"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--agent.memory", "snial"], "--agent.memory is 'snial': did you mean snail?"),
        (["--agent.memory"], "--agent.memory needs a value: gru, lstm, snail, transformer"),
        (["--agent.memory", "transformer"], "--agent.memory is 'transformer': hidden_size is 20"),
    ],
)
def test_a_variant_that_cannot_be_is_named(words, message):
    agent = replace(load(NAME).agent, hidden_size=20)
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        with_variants(agent, words, "--agent")


def test_python_overrides_choose_a_variant_by_name_or_by_its_configuration():
    experiment = load(NAME)
    assert with_overrides(experiment, {"agent.memory": "transformer"}).agent.memory == TransformerConfig()
    assert with_overrides(experiment, {"agent.memory": SnailConfig(length=5)}).agent.memory.length == 5
    assert with_overrides(experiment, {"agent.memory.span": 5}).agent.memory.span == 5


@pytest.mark.parametrize(
    ("earlier", "memory"),
    [
        ({"memory": "gru", "memory_span": 100}, RecurrentConfig("gru", 100)),
        ({"memory": "lstm", "memory_span": None}, RecurrentConfig("lstm")),
        ({"memory": "snail", "memory_span": None, "snail": {"length": 11}}, SnailConfig(length=11)),
        ({"memory": "transformer", "transformer": {"num_layers": 1}, "snail": {}}, TransformerConfig(num_layers=1)),
    ],
    ids=str,
)
def test_a_run_whose_config_names_the_kind_of_memory_is_read(earlier, memory):
    config = to_config(load(NAME), NAME)
    config["agent"] = {**config["agent"], **earlier}
    assert from_config(config, Path("run")).agent.memory == memory
