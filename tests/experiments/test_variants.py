"""Fields that hold one of several configurations: chosen by name, saved, and read from older runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from agents.hyperx import HyperXConfig, NoBonus
from agents.rl2 import MEMORIES
from experiments.experiment.definition import from_config, load, to_config
from experiments.experiment.overrides import with_overrides
from experiments.experiment.variants import with_variants
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.errors import UserError

NAME = "bernoulli_bandit/rl2"


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
