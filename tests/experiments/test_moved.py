"""Runs made when a learner's class stood in another module are read as what they were."""

from pathlib import Path

import pytest

from experiments.experiment.definition import _class_of
from metarl.fewshot.catalog import LEARNERS

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


@pytest.mark.parametrize("name", FORMER)
def test_a_learner_is_found_by_the_path_that_it_had(name):
    found = _class_of("agent", FORMER[name], lambda: pytest.fail("a recipe was asked for"), Path("a_run"))
    assert f"{found.__module__}:{found.__qualname__}" == LEARNERS[name]


def test_every_learner_that_had_another_path_is_tried():
    assert FORMER.keys() == LEARNERS.keys()
