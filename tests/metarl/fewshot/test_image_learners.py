"""Every few-shot learner of images: contracts, and a probe that fails before meta-training and succeeds after."""

import json
import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.cli.main import main
from experiments.experiment.names import LEARNERS, experiment_names
from metarl.adaptation.external_memory import ExternalMemoryConfig
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.fewshot.episode import FewShotEpisode, FewShotFamily
from metarl.fewshot.methods.image_cnp import ImageCNPConfig
from metarl.fewshot.methods.lstm import LSTMConfig
from metarl.fewshot.methods.mann import MANNConfig
from metarl.fewshot.methods.prototypical import PrototypicalConfig
from metarl.fewshot.methods.snail import SnailLearnerConfig
from metarl.fewshot.methods.transformer import TransformerLearnerConfig
from metarl.records import Examples
from metarl.trainer import TrainConfig, Trainer
from tests.metarl.fewshot.gradient_learners import GRADIENT_LEARNERS
from tests.metarl.fewshot.metric_learners import EMBEDDING, METRIC_LEARNERS
from tests.metarl.fewshot.patterns import Patterns

# name: (small settings, iterations of the probe, accuracy that it reaches at least)
IMAGE_LEARNERS: dict[str, tuple[Any, int, float]] = {
    **GRADIENT_LEARNERS,
    **METRIC_LEARNERS,
    "snail": (
        SnailLearnerConfig(conv=EMBEDDING, snail=SnailConfig((16,), (16, 16), (16, 16), length=4), outer_lr=5e-3),
        130,
        0.85,
    ),
    "transformer": (
        TransformerLearnerConfig(
            embedding="pixels", width=32, transformer=TransformerConfig(num_heads=2, positions="none"), outer_lr=3e-3
        ),
        110,
        0.85,
    ),
    "mann": (
        MANNConfig(embedding="pixels", hidden_size=32, slots=ExternalMemoryConfig(12, 16, num_heads=2), outer_lr=1e-2),
        260,
        0.75,
    ),
    "lstm": (LSTMConfig(embedding="pixels", hidden_size=64, outer_lr=1e-2), 260, 0.8),
    "image_cnp": (
        ImageCNPConfig(conv=EMBEDDING, hidden_sizes=(64, 64), latent_size=64, outer_lr=3e-3),
        400,
        0.7,
    ),
}
TASKNORM = replace(EMBEDDING, normalisation="tasknorm")
PLAIN = Patterns(faintness=1.0, shadow=0.0)
EASIER = {  # for learners that have yet to find out that examples are to be compared; and the tasks in a batch
    "snail": (PLAIN, 16),
    "transformer": (replace(PLAIN, size=3), 64),
    "mann": (replace(PLAIN, size=3), 64),
    "lstm": (replace(PLAIN, size=3), 64),
    "image_cnp": (PLAIN, 64),
}
image_learners = pytest.mark.parametrize("name", IMAGE_LEARNERS)


def command(*words: str) -> int:
    """The exit status of a command line."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return int(stop.value.code or 0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(name: str, num_iterations: int = 4, **settings: Any) -> Trainer:
    family, num_tasks = EASIER.get(name, (Patterns(), 8))
    config = TrainConfig(**{"num_iterations": num_iterations, "num_tasks": num_tasks, "eval_tasks": 100, **settings})
    return Trainer(family, IMAGE_LEARNERS[name][0], config, agent_name=name, seed=0)


def test_patterns_are_a_family_whose_support_comes_shot_by_shot():
    family = Patterns(shots=2)
    assert isinstance(family, FewShotFamily)
    episode = family.episode(4, "train", generator=seeded())
    assert episode.support.x.shape == (4, 6, 1, 8, 8)
    for shot in (episode.support.y[:, :3], episode.support.y[:, 3:]):
        assert torch.equal(shot.sort().values, torch.arange(3).expand(4, 3))


def test_every_learner_is_probed_on_functions_or_on_images():
    recipes = {name.partition("/")[2] for name in experiment_names() if name.startswith("sinusoid/")}
    assert set(LEARNERS) <= recipes | set(IMAGE_LEARNERS)


@image_learners
def test_it_resumes_bit_for_bit_and_moves_every_parameter(name):
    whole, rest = (small(name, eval_tasks=5) for _ in range(2))
    before = {key: value.clone() for key, value in whole.agent.adaptation.named_parameters()}
    for _ in range(2):
        whole.iterate()
    rest.load_state_dict(deepcopy(whole.state_dict()))
    for _ in range(2):
        whole.iterate()
        rest.iterate()
    for key, value in whole.agent.adaptation.named_parameters():
        assert torch.equal(value, dict(rest.agent.adaptation.named_parameters())[key])
        if not key.endswith("conv/bias"):  # a step size or gate of what normalisation takes away again
            assert not torch.equal(value, before[key]), key
    assert whole.evaluate() == rest.evaluate()


@image_learners
def test_its_curve_begins_at_chance_and_says_what_it_rests_on(name):
    trainer = small(name, eval_tasks=30)
    evaluation = trainer.evaluate(num_points=1)
    assert len(evaluation.points) == 2
    assert evaluation.points[0].mean == pytest.approx(1 / 3, abs=0.15)
    assert evaluation.metrics.keys() == {"nll", "ece"}
    assert all(math.isfinite(value) for values in evaluation.metrics.values() for value in values)
    assert {"episodes", "milliseconds_per_task", "adapted_parameters"} <= set(evaluation.facts)


@image_learners
def test_tasks_do_not_leak_into_each_other(name):
    trainer = small(name)
    family, _ = EASIER.get(name, (Patterns(), 8))
    episode = replace(family, shots=2).episode(3, "test", generator=seeded())
    together = trainer.agent.predictions(episode, 1)
    alone = trainer.agent.predictions(episode.map(lambda value: value[1:2]), 1)
    torch.testing.assert_close(together[:, 1:2], alone, atol=1e-4, rtol=1e-4)


@image_learners
def test_names_of_classes_mean_nothing(name):
    """With the labels of the support renamed, the predictions are renamed too."""
    probabilities = []
    for rename in (torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])):
        trainer = small(name)
        family, _ = EASIER.get(name, (Patterns(), 8))
        episode = family.episode(3, "test", generator=seeded())
        renamed = FewShotEpisode(replace(episode.support, y=rename[episode.support.y]), episode.query)
        probabilities.append(trainer.agent.predictions(renamed, 1)[1].softmax(-1)[..., rename])
    if name in NAMES_MATTER:
        assert not torch.allclose(*probabilities)
    else:
        torch.testing.assert_close(*probabilities, atol=1e-4, rtol=1e-4)


NAMES_MATTER = {
    *GRADIENT_LEARNERS,
    *EASIER,
}  # whose last layer begins somewhere, and is a different beginning for each name


@pytest.mark.learn
@image_learners
def test_it_tells_patterns_apart_after_meta_training_and_not_before(name):
    _, iterations, reached = IMAGE_LEARNERS[name]
    trainer = small(name, iterations)
    before = trainer.evaluate(num_points=1)
    for _ in range(iterations):
        trainer.iterate()
    after = trainer.evaluate(num_points=1)
    assert before.points[1].mean < 0.6
    assert after.points[1].mean > reached, after.points[1].mean


def test_a_learner_that_compares_takes_more_classes_and_one_with_a_head_does_not():
    ten = Patterns(ways=10).episode(2, "test", generator=seeded())
    assert small("prototypical").agent.predictions(ten, 1).shape == (2, 2, 50, 10)
    with pytest.raises(ValueError, match="ways is 10; this learner's net has outputs for 3"):
        small("maml").agent.predictions(ten, 1)


def test_padding_is_of_no_class_and_missing_classes_are_never_predicted():
    agent = small("prototypical").agent
    agent.adaptation.eval()
    x = Patterns().episode(1, "test", generator=seeded()).support.x
    y = torch.tensor([[0, 1, 1]])
    valid = torch.tensor([[True, False, True]])
    adaptation: Any = agent.adaptation
    padded = adaptation.adapt(adaptation.prior(1), Examples(x, y, valid))
    plain = adaptation.adapt(adaptation.prior(1), Examples(x[:, [0, 2]], y[:, [0, 2]]))
    torch.testing.assert_close(padded.means, plain.means)
    lacking: Tensor = adaptation.predict(adaptation.adapt(adaptation.prior(1), Examples(x[:, 2:], y[:, 2:])), x)
    assert bool((lacking.argmax(-1) == 1).all())


RECIPE = """
from experiments.experiment.definition import Experiment
from metarl.nets.conv import ConvConfig
from metarl.fewshot.methods.prototypical import PrototypicalConfig
from metarl.trainer import TrainConfig
from tests.metarl.fewshot.patterns import Patterns

experiment = Experiment(
    Patterns(), PrototypicalConfig(conv=ConvConfig(filters=4, num_blocks=1)), TrainConfig(num_iterations=2, num_tasks=2)
)
"""


def test_from_a_recipe_to_an_evaluation_with_more_classes_and_shots(tmp_path, capsys):
    (tmp_path / "recipe.py").write_text(RECIPE)
    run = str(tmp_path / "run")
    words = ["--agent.conv.normalisation", "running", "--train.eval-tasks", "5", "--run-dir", run]
    assert command("train", str(tmp_path / "recipe.py"), *words) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "accuracy on the queries on 5 test tasks" in output
    assert "ways: 3; shots: 1; queries: 5; normalisation: running" in output
    command("evaluate", run, "--tasks", "4", "--ways", "5", "--shots", "2", "--json")
    evaluation = json.loads(capsys.readouterr().out)
    assert (evaluation["facts"]["ways"], evaluation["facts"]["shots"]) == (5, 2)
    assert [round(score["mean"], 6) for score in evaluation["points"][:1]] == [0.2]
    assert len(evaluation["points"]) == 3
    assert command("evaluate", run, "--tasks", "4", "--ways", "5") == 0
    assert (tmp_path / "run" / "evaluation_test_4x1_5ways_i2_s0.png").is_file()
    words = ["--tasks", "4", "--family.faintness", "0.5", "--agent.conv.precision", "bfloat16"]
    assert command("evaluate", run, *words, "--ways", "4") == 0
    name = "evaluation_test_4x1_4ways_family.faintness=0.5_agent.conv.precision=bfloat16_i2_s0.json"
    assert json.loads((tmp_path / "run" / name).read_text())["facts"]["agent.conv.precision"] == "bfloat16"
    assert command("evaluate", run, "--family.size", "12") == 2
    assert "inputs of patterns have shape [1, 12, 12]; this learner reads [1, 8, 8]" in capsys.readouterr().err


def test_functions_have_no_classes(tmp_path, capsys):
    run = str(tmp_path / "run")
    words = ["--train.num-iterations", "1", "--train.eval-tasks", "5", "--run-dir", run]
    assert command("train", "sinusoid/maml", *words) == 0
    assert command("evaluate", run, "--tasks", "4", "--ways", "5") == 2
    assert "--ways is 5; sinusoid has no ways of classes" in capsys.readouterr().err


@pytest.mark.parametrize("config", [PrototypicalConfig, SnailLearnerConfig])
def test_statistics_of_the_support_are_refused_where_queries_are_embedded_without_it(config):
    with pytest.raises(ValueError, match=r"normalisation is 'tasknorm'; must be .* embeds queries without the support"):
        config(conv=TASKNORM).make_learner(Patterns().problem, num_iterations=1, generator=seeded())
