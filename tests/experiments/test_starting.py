"""Meta-training that starts from another run's weights: what is taken along, what is not, and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import metarl
from agents.pearl import PEARLConfig
from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.navigation import PointNavigation
from experiments.experiment.definition import Experiment
from experiments.experiment.reading import read
from experiments.experiment.starting import Start
from metarl.errors import UserError
from metarl.optim import is_optimizer_state
from metarl.run.directory import Run
from metarl.trainer import TrainConfig
from tests.experiments.command import run as command

WORDS = ("--train.num-iterations", "3", "--train.num-tasks", "3", "--train.eval-tasks", "2")
SMALL = ("--agent.hidden-size", "8", "--agent.num-epochs", "1")
BANDIT = Experiment(
    BernoulliBandit(num_arms=3, num_pulls=4),
    RL2Config(hidden_size=8, head_sizes=(), num_epochs=1),
    TrainConfig(num_iterations=2, num_tasks=3, eval_tasks=2),
)
PEARL = Experiment(
    PointNavigation(horizon=5),
    PEARLConfig(
        hidden_sizes=(8,),
        encoder_sizes=(8,),
        num_train_tasks=3,
        initial_episodes=2,
        capacity=100,
        num_gradient_steps=2,
        meta_batch=2,
        batch=8,
        context=8,
        normalise_obs=True,
    ),
    TrainConfig(num_iterations=2, num_tasks=3, eval_tasks=2),
)


def tensors(state: Any, where: str = "") -> dict[str, Tensor]:
    if isinstance(state, Tensor):
        return {where: state}
    if isinstance(state, dict) and not is_optimizer_state(state):
        return {k: t for name, value in state.items() for k, t in tensors(value, f"{where}.{name}").items()}
    return {}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Run:
    return metarl.train(BANDIT, run_dir=tmp_path_factory.mktemp("source") / "run", log=(), progress=False)


@pytest.mark.parametrize("experiment", [BANDIT, PEARL], ids=["rl2", "pearl"])
def test_a_training_starts_with_all_tensors_of_the_other_learner_and_fresh_optimisers(experiment, tmp_path):
    run = metarl.train(experiment, run_dir=tmp_path / "run", log=(), progress=False)
    trainer = replace(experiment, seed=7).trainer()
    fresh = trainer.agent.state_dict()
    Start.of(run).give(trainer)
    given, learned = trainer.agent.state_dict(), run.load("latest")["agent"]
    assert tensors(given).keys() == tensors(learned).keys()
    for name, value in tensors(learned).items():
        assert torch.equal(tensors(given)[name], value), name
    plain = {name: value for name, value in given.items() if isinstance(value, (int, float))}
    assert plain == {name: value for name, value in fresh.items() if isinstance(value, (int, float))}
    assert trainer.iteration == 0


def test_ranges_may_differ_and_the_origin_is_in_meta_json(source, tmp_path):
    other = replace(BANDIT, family=replace(BANDIT.family, num_pulls=6), train=replace(BANDIT.train, num_iterations=1))
    run = metarl.train(other, run_dir=tmp_path / "run", start_from=source, log=(), progress=False)
    origin = json.loads((run.path / "meta.json").read_text())["from"]
    assert origin["run"] == str(source.path)
    assert (origin["checkpoint"], origin["iteration"], origin["seed"]) == ("latest", 2, 0)
    assert origin["weights"] == Start.of(source).origin["weights"] != Start.of(run).origin["weights"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--family.num-arms", "5"), r"agent\.net\.\S+ has shape \[.*\]; must be \[.*\]"),
        (("--agent.hidden-size", "16"), r"agent\.net\.\S+ has shape \[.*\]; must be \[.*\]"),
        (("--agent.head-sizes", "8"), r"agent\.net\.\S+ has shape|has no agent\.net\."),
    ],
)
def test_weights_of_another_shape_are_refused_by_name_before_a_run_is_made(
    source, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    own = ("--family.num-arms", "3", "--family.num-pulls", "4", *SMALL, "--agent.head-sizes")
    status, _, errors = command(capsys, "train", "bandit/rl2", *own, *words, *WORDS, "--from", str(source.path))
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert errors.startswith(f"metarl: cannot start from {source.path}: ")
    assert re.search(message, errors)
    assert not (tmp_path / "runs").exists()


def test_another_learners_weights_are_refused(source):
    with pytest.raises(UserError, match=r"it has no agent\.\S+, which has shape"):
        Start.of(source).give(PEARL.trainer())


def test_a_training_from_a_run_is_resumed_exactly(source, tmp_path, capsys):
    longer = replace(BANDIT, seed=1, train=replace(BANDIT.train, num_iterations=4, checkpoint_every=1))
    whole = metarl.train(longer, run_dir=tmp_path / "whole", start_from=source, log=(), progress=False)

    class Stop(Exception):  # noqa: N818
        pass

    def stop(trainer: Any, metrics: Any) -> None:
        if trainer.iteration == 2:
            raise Stop

    with pytest.raises(Stop):
        metarl.train(longer, run_dir=tmp_path / "half", start_from=source, log=(), progress=stop)
    assert command(capsys, "resume", str(tmp_path / "half"))[0] == 0
    one, other = (tensors(run.load("latest")["agent"]) for run in (whole, Run(tmp_path / "half")))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_that_was_stopped_before_it_had_its_weights_does_not_go_on_without(source, tmp_path, capsys):
    run = metarl.train(BANDIT, run_dir=tmp_path / "run", start_from=source, log=(), progress=False)
    for name in ("checkpoints/latest.pt", "progress.json"):
        (run.path / name).unlink()
    status, _, errors = command(capsys, "resume", str(run.path))
    assert status == 2
    assert "was stopped before it had the weights to start from" in errors


def test_starting_from_a_run_runs_none_of_its_code(source, tmp_path):
    config = json.loads((source.path / "config.json").read_text())
    (source.path / "config.json").write_text(json.dumps({**config, "experiment": str(Path("/nowhere/evil.py"))}))
    try:
        assert Start.of(source).origin["experiment"] == "/nowhere/evil.py"
        with pytest.raises(UserError):
            read(Run(tmp_path))
    finally:
        (source.path / "config.json").write_text(json.dumps(config))
