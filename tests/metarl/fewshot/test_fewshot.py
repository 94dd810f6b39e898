"""Few-shot regression: families, learners, and the same trainer, resume and command line as for agents."""

import json
import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from experiments.cli.main import main
from experiments.experiment.definition import Expected, load
from experiments.experiment.names import LEARNERS, experiment_names
from metarl.evaluation import RETURN
from metarl.fewshot.episode import FewShotEpisode, FewShotFamily, generator_of
from metarl.fewshot.gradient_learner import fading_weights
from metarl.fewshot.methods.imaml import IMAMLConfig
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.methods.maml_plus_plus import MAMLPlusPlusConfig
from metarl.fewshot.methods.neural_processes import CNPConfig
from metarl.fewshot.methods.reptile import ReptileConfig, mini_batches
from metarl.fewshot.problem import ERROR, Regression
from metarl.fewshot.regression import Harmonic, Sinusoid
from metarl.records import Digest, cat
from metarl.trainer import _EVALUATION_SEED, TrainConfig, Trainer

families = pytest.mark.parametrize("family", [Sinusoid(), Harmonic(noise_std=0.0)], ids=["sinusoid", "harmonic"])
WITHOUT_RECIPE = {"maml_plus_plus": MAMLPlusPlusConfig(), "imaml": IMAMLConfig(num_inner_steps=4)}
RECIPES = {name.partition("/")[2] for name in experiment_names() if name.startswith("sinusoid/")}
learners = pytest.mark.parametrize("name", [name for name in LEARNERS if name in RECIPES])


def command(*words: str) -> int:
    """The exit status of a command line."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return int(stop.value.code or 0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@families
def test_one_seed_is_one_episode_and_the_shapes_are_the_familys(family):
    assert isinstance(family, FewShotFamily)
    first, second, other = (
        family.episode(4, "train", shots=3, queries=7, generator=seeded(seed)) for seed in (0, 0, 1)
    )
    assert first.support.x.shape == first.support.y.shape == (4, 3, 1)
    assert first.query.x.shape == (4, 7, 1)
    assert first.num_examples == 40
    assert torch.equal(first.query.y, second.query.y)
    assert not torch.equal(first.query.y, other.query.y)
    with pytest.raises(ValueError, match="split is 'dev'; "):
        family.sample(1, "dev", seeded())  # type: ignore[arg-type]


def test_sinusoids_are_what_they_say_and_ood_lies_outside():
    family = Sinusoid()
    tasks, ood = family.sample(2000, "train", seeded()), family.sample(2000, "ood", seeded())
    data = family.examples(tasks, 5, seeded())
    for task in range(3):
        expected = [
            tasks.amplitude[task].item() * math.sin(x - tasks.phase[task].item()) for x in data.x[task, :, 0].tolist()
        ]
        assert data.y[task, :, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert float(tasks.amplitude.min()) >= 0.1
    assert float(tasks.amplitude.max()) <= 5 <= float(ood.amplitude.min())
    assert float(tasks.phase.max()) <= math.pi + 1e-6
    assert float(ood.phase.min()) >= math.pi - 1e-6
    assert data.x.abs().max() <= 5


def test_an_evaluation_keeps_what_makes_each_function_and_the_hash_is_that_of_the_examples():
    trainer = small("maml")
    evaluation = trainer.evaluate(num_tasks=7)
    assert evaluation.per_task is not None
    streams = [generator_of(_EVALUATION_SEED, index, "cpu") for index in range(7)]
    family = trainer.family
    episodes = cat([family.episode(1, "test", queries=family.test_queries, generator=stream) for stream in streams])
    digest = Digest()
    digest.add(FewShotEpisode(episodes.support, episodes.query))
    assert evaluation.tasks_hash == str(digest)
    for name in ("amplitude", "phase"):
        assert evaluation.per_task.parameters[name] == pytest.approx(getattr(episodes.tasks, name).tolist(), rel=1e-6)
    assert len(set(evaluation.per_task.parameters["phase"])) == 7


def small(name: str, **settings) -> Trainer:
    if name in WITHOUT_RECIPE:
        experiment = replace(load("sinusoid/maml"), agent=WITHOUT_RECIPE[name])
    else:
        experiment = load(f"sinusoid/{name}")
    train = TrainConfig(**{"num_iterations": 6, "num_tasks": 3, "eval_tasks": 5, **settings})
    return replace(experiment, train=train).trainer()


@learners
def test_every_learner_resumes_bit_for_bit_and_moves_every_parameter(name):
    whole, rest = (small(name) for _ in range(2))
    before = {key: value.clone() for key, value in whole.agent.adaptation.named_parameters()}
    for _ in range(3):
        whole.iterate()
    rest.load_state_dict(deepcopy(whole.state_dict()))
    for _ in range(3):
        whole.iterate()
        rest.iterate()
    for key, value in whole.agent.adaptation.named_parameters():
        assert torch.equal(value, dict(rest.agent.adaptation.named_parameters())[key])
        assert not torch.equal(value, before[key]), key
    assert whole.evaluate() == rest.evaluate()


@learners
def test_every_learner_has_a_curve_from_step_zero_on_every_split(name):
    trainer = small(name)
    for split in ("train", "test", "ood"):
        evaluation = trainer.evaluate(split, num_points=3)
        assert len(evaluation.points) == 4
        assert evaluation.measure == trainer.source.measure == replace(ERROR, point=trainer.agent.point)
        assert evaluation.total == evaluation.points[-1]
        assert all(math.isfinite(score.mean) for score in evaluation.points)


def test_best_is_the_lowest_error():
    trainer = small("maml")
    outcomes = []
    for window in ([3.0, 1.0], [2.5], [1.5], []):
        trainer._window = window
        outcomes.append(trainer.close_window())
    assert outcomes == [True, False, True, False]
    assert trainer.best_return == 1.5
    assert (RETURN.is_better(2, than=1), ERROR.is_better(2, than=1)) == (True, False)


def test_what_is_expected_is_a_least_return_or_a_largest_error():
    low, high = Expected(at_most=0.5, source="us"), Expected(at_least=0.5, source="us")
    assert [low.is_met(0.4), low.is_met(0.6), high.is_met(0.4), high.is_met(0.6)] == [True, False, False, True]
    for wrong in ({}, {"at_least": 1.0, "at_most": 2.0}):
        with pytest.raises(ValueError, match="one of them is needed"):
            Expected(source="us", **wrong)  # type: ignore[arg-type]


def test_multi_step_losses_fade_to_the_last_alone():
    assert fading_weights(4, 0.0, 0.5) == [0.25, 0.25, 0.25, 0.25]
    assert fading_weights(4, 0.25, 0.5) == [0.125, 0.125, 0.125, 0.625]
    assert fading_weights(4, 0.5, 0.5) == [0, 0, 0, 1]
    assert fading_weights(3, 0.0, 0.0) == [0, 0, 1]


def test_reptile_moves_by_a_share_of_the_mean_way():
    """One task, one mini-batch, the whole way: the initialisation becomes what one gradient step made of it."""
    reptile = ReptileConfig(inner_batch=6, outer_lr=1.0).make_learner(
        Regression(1, 1), num_iterations=2, generator=seeded()
    )
    episode = Sinusoid().episode(2, "train", shots=3, queries=3, generator=seeded())
    adaptation = reptile.adaptation
    (batch,) = mini_batches(episode, 6)
    adapted = {name: v.detach().mean(0) for name, v in adaptation.adapt(adaptation.prior(2), batch).items()}
    reptile.update(episode, seeded())
    torch.testing.assert_close({n: p.detach() for n, p in adaptation.net.named_parameters()}, adapted)
    with pytest.raises(ValueError, match="inner_batch is 4; must divide the 6 examples"):
        mini_batches(episode, 4)


def test_derivative_order_is_annealed():
    """Within the first share of the iterations, an update is that of first-order MAML; afterwards it is not."""
    episode = Sinusoid().episode(3, "train", shots=5, queries=5, generator=seeded())
    configs = (MAMLConfig(first_order=True), MAMLConfig(first_order_share=0.5), MAMLConfig())
    first, annealed, second = (c.make_learner(Regression(1, 1), num_iterations=2, generator=seeded()) for c in configs)
    norms = [learner.update(episode, seeded())["train/grad_norm"] for learner in (first, annealed, second)]
    assert norms[0] == norms[1] != norms[2]
    annealed.adaptation.load_state_dict(second.adaptation.state_dict())
    assert annealed.update(episode, seeded())["train/grad_norm"] == pytest.approx(
        second.update(episode, seeded())["train/grad_norm"]
    )


@pytest.mark.learn
def test_maml_fits_sinusoids_after_meta_training_and_not_before():
    """In seconds: the error after ten steps, on amplitudes and phases that it has not met."""
    agent = MAMLConfig(outer_lr=5e-3, final_outer_lr=1e-4)
    config = TrainConfig(num_iterations=800, num_tasks=25, eval_tasks=600)
    trainer = Trainer(Sinusoid(), agent, config, agent_name="maml", seed=0)
    before = trainer.evaluate()
    for _ in range(800):
        trainer.iterate()
    after = trainer.evaluate()
    assert before.points[10].mean > 1.5
    assert after.points[10].mean < 0.5  # three seeds reach 0.37 to 0.44; sinusoid/maml goes on to less than 0.15
    assert after.points[10].mean < 0.25 * after.points[0].mean


def test_the_curve_of_a_belief_counts_examples():
    """As many as are asked for, whatever the family's shots, which are the default; each is a prefix of the support."""
    trainer = Trainer(
        Sinusoid(shots=3), CNPConfig(), TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=4), agent_name="", seed=0
    )
    assert trainer.num_points == 3
    assert len(trainer.evaluate().points) == 4
    evaluation = trainer.evaluate(num_points=5)
    assert (evaluation.measure.point, len(evaluation.points)) == ("example", 6)
    episode = Sinusoid().episode(4, "test", shots=5, queries=7, generator=seeded())
    curve = trainer.agent.predictions(episode, 5)
    for count in range(6):
        few = replace(episode, support=episode.support.map(lambda value: value[:, :count]))  # noqa: B023
        torch.testing.assert_close(trainer.agent.predictions(few, count)[-1], curve[count])
    with pytest.raises(ValueError, match="num_points is 6; must be at most 5"):
        trainer.agent.predictions(episode, 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sinusoid(shots=0), "shots is 0; must be at least 1"),
        (lambda: Sinusoid(x=(1.0, 1.0)), r"x is \(1.0, 1.0\); must be a range"),
        (lambda: Harmonic(noise_std=-1), "noise_std is -1; must be 0 or more"),
        (lambda: MAMLConfig(inner_lr=0), "inner_lr is 0; must be positive"),
        (lambda: MAMLConfig(multi_step_share=2), r"multi_step_share is 2; must be in \[0, 1\]"),
        (lambda: MAMLConfig(hidden_sizes=()), "hidden_sizes is "),
        (lambda: CNPConfig(min_std=0), "min_std is 0; must be positive"),
        (lambda: IMAMLConfig(chunk_size=0), "chunk_size is 0; must be at least 1"),
        (lambda: ReptileConfig(inner_batch=0), "inner_batch is 0; must be at least 1"),
        (lambda: small("maml", copies=2), "copies is 2; must be 1 for few-shot families"),
    ],
)
def test_a_wrong_setting_is_named(make, message):
    with pytest.raises(Exception, match=message):
        make()


def test_from_train_to_evaluate_and_resume(tmp_path, capsys):
    run = tmp_path / "run"
    words = "--train.num-iterations 4 --train.num-tasks 3 --train.eval-every 2 --train.eval-tasks 5"
    assert command("train", "sinusoid/maml", *words.split(), "--run-dir", str(run)) == 0
    output = capsys.readouterr()
    assert "Expected after 10 steps: at most 0.15" in output.out
    assert "NOT reached" in output.out
    assert (run / "evaluation_test.png").is_file()
    assert command("resume", str(run), "--num-iterations", "6") == 0
    capsys.readouterr()
    command("evaluate", str(run), "--split", "ood", "--tasks", "6", "--episodes", "2", "--json")
    evaluation = json.loads(capsys.readouterr().out)
    assert (evaluation["measure"]["name"], evaluation["measure"]["first"]) == ("mse", 0)
    assert len(evaluation["points"]) == 3
    rows = [json.loads(line) for line in (run / "progress.json").read_text().splitlines()]
    assert {"meta_test/mse/step_0", "meta_test/mse/step_10", "train/query_mse"} <= set(rows[-1])
    assert rows[-1]["time/total_timesteps"] == 6 * 3 * 20


@pytest.mark.parametrize("words", [["play", "RUN"], ["train", "sinusoid/maml", "--video-every", "1"]])
def test_functions_cannot_be_filmed(words, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["--train.num-iterations", "1", "--train.eval-tasks", "5", "--run-dir", str(run)]
    if words[0] == "play":
        command("train", "sinusoid/maml", *arguments)
        words = ["play", str(run)]
    assert command(*words) == 2
    assert "nothing acts in them" in capsys.readouterr().err
