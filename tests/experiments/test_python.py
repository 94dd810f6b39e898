"""MetaRL from Python: train, evaluate and load as functions, and agents in a loop of the user's own."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import metarl
from agents.maml import MAMLTRPOConfig
from agents.pearl import PEARLConfig
from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from experiments.experiment.acting import ActingAgent, Predictor
from experiments.experiment.definition import Experiment, from_config
from metarl.errors import UserError
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.methods.neural_processes import CNPConfig
from metarl.fewshot.regression import Sinusoid
from metarl.protocols import PosteriorSampling
from metarl.records import Decision, Step
from metarl.rl.rollouts import run_trial
from metarl.run.directory import Run
from metarl.trainer import TrainConfig

TRAIN = TrainConfig(num_iterations=2, num_tasks=3, eval_tasks=3)
AGENTS: dict[str, Experiment[Any, Any]] = {
    "rl2": Experiment(
        GridNavi(size=3, horizon=4, num_episodes=3), RL2Config(hidden_size=8, head_sizes=(), num_epochs=1), TRAIN
    ),
    "maml": Experiment(
        PointNavigation(horizon=5), MAMLTRPOConfig(hidden_sizes=(8,), num_rollouts=2, num_inner_steps=2), TRAIN
    ),
    "pearl": Experiment(
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
            next_obs_in_context=True,
        ),
        TRAIN,
    ),
}
SINUSOID = Experiment(Sinusoid(), MAMLConfig(hidden_sizes=(8,)), TRAIN)


def test_importing_metarl_loads_its_front_door_and_nothing_else():
    """So it takes no longer than starting Python: whatever is heavy is imported when it is used."""
    program = "import sys; before = set(sys.modules); import metarl; dir(metarl); print(*set(sys.modules) - before)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    others = {name for name in result.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names}
    assert others == {"metarl", "metarl._lazy", "metarl._packages"}


# Training and evaluating


def test_a_recipe_is_trained_and_evaluated_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    overrides = {"train.num_iterations": 2, "train.num_tasks": 4, "train.eval_tasks": 5, "agent.hidden_size": 8}
    seen = []
    run = metarl.train(
        "bandit/rl2", seed=3, overrides=overrides, progress=lambda trainer, metrics: seen.append(trainer.iteration)
    )
    assert seen == [1, 2]
    assert run.path.parent == Path("runs/bernoulli_bandit/rl2")
    config = run.config()
    assert config["experiment"] == "bernoulli_bandit/rl2"
    assert (config["seed"], config["train"]["num_tasks"], config["agent"]["hidden_size"]) == (3, 4, 8)
    assert {"evaluation_test.json", "evaluation_test.png"} <= {path.name for path in run.path.iterdir()}
    curve = metarl.evaluate(run, tasks=6, points=3)
    assert (curve.num_tasks, len(curve.points)) == (6, 3)
    assert metarl.evaluate(str(run.path), tasks=6, points=3) == curve
    other = metarl.evaluate(run, tasks=6, overrides={"family.num_pulls": 4})
    assert other.facts["family.num_pulls"] == 4
    assert capsys.readouterr() == ("", "")


def test_training_from_python_is_that_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = {"train.num_iterations": 2, "train.num_tasks": 4, "train.eval_tasks": 5, "agent.hidden_size": 8}
    from experiments.cli.main import main

    words = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    with pytest.raises(SystemExit, match="0"):
        main(["train", "bernoulli_bandit/rl2", "--run-dir", "command", *words])
    metarl.train("bernoulli_bandit/rl2", run_dir="python", overrides=sizes, progress=False)
    for name in ("evaluation_test.json", "config.json"):
        assert json.loads(Path("command", name).read_text()) == json.loads(Path("python", name).read_text())


def test_an_experiment_in_python_is_trained_and_loaded_again(tmp_path):
    run = metarl.train(AGENTS["rl2"], run_dir=tmp_path / "run", progress=False)
    assert from_config(run.config(), run.path) == AGENTS["rl2"]
    assert isinstance(metarl.load(run.path), ActingAgent)
    assert isinstance(metarl.load(run, checkpoint="best"), ActingAgent)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"agent.hidden_siz": 8}, "agent.hidden_siz is not a field: did you mean hidden_size?"),
        ({"agnet.hidden_size": 8}, "agnet is not a field: did you mean agent?"),
        ({"agent.hidden_size": "8"}, "agent.hidden_size is '8': Input should be a valid integer"),
        ({"agent.hidden_size": True}, "agent.hidden_size is True: Input should be a valid integer"),
        ({"agent.memory": "gur"}, "agent.memory is 'gur': did you mean gru?"),
        ({"agent.learning_rate": 5e-5}, "agent: final_learning_rate is 0.0001 and learning_rate 5e-05"),
        ({"train.num_iterations.x": 1}, "train.num_iterations is 2, which has no fields"),
        ({"family": 3}, "family is 3; must be an object such as GridNavi(...)"),
        ({"family": GridNavi(), "family.size": 3}, "overrides give both family and family.size"),
        ({"seed": -1}, "seed is -1; must be 0 or more"),
    ],
)
def test_a_wrong_override_is_one_line(overrides, message, tmp_path):
    with pytest.raises(UserError) as caught:
        metarl.train(AGENTS["rl2"], run_dir=tmp_path / "run", overrides=overrides, progress=False)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_mistakes_in_names_are_one_line(tmp_path):
    with pytest.raises(UserError, match="unknown experiment 'grid_navi/rl3': did you mean"):
        metarl.train("grid_navi/rl3")
    with pytest.raises(UserError, match="there is no run at"):
        metarl.evaluate(tmp_path / "absent")
    with pytest.raises(UserError, match="unknown task family 'grid_navy': did you mean grid_navi"):
        metarl.make_family("grid_navy")
    with pytest.raises(UserError, match="grid_navi has no field 'sise'"):
        metarl.make_family("grid_navi", sise=3)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = metarl.trian  # pyright: ignore[reportAttributeAccessIssue]


def test_what_there_is_can_be_listed_and_made():
    assert "Bayes-optimal" in metarl.list_experiments()["grid_navi/rl2"]
    assert metarl.make_family("grid_navi", size=7) == GridNavi(size=7)
    assert metarl.make_family("sinusoid") == Sinusoid()


def test_a_curve_becomes_a_frame(tmp_path, monkeypatch):
    curve = AGENTS["rl2"].trainer().evaluate(num_tasks=4)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"pip install 'metarl\[pandas\]'"):
        curve.to_frame()
    pandas = SimpleNamespace(
        DataFrame=lambda columns, index: (columns, index), Index=lambda points, name: (points, name)
    )
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    columns, (points, name) = curve.to_frame()
    assert (list(points), name) == ([1, 2, 3], "episode")
    assert columns["mean"] == [score.mean for score in curve.points]
    assert set(curve.bounds) < set(columns)


# Acting


def loaded(experiment: Experiment[Any, Any], **settings: Any) -> ActingAgent:
    trainer = experiment.trainer()
    trainer.iterate()
    return ActingAgent(trainer, **settings)


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("copies", [1, 2])
def test_an_agent_in_a_loop_acts_as_in_an_evaluation(name, copies):
    experiment = AGENTS[name]
    agent = loaded(experiment, deterministic=True)
    family = experiment.family
    if (agent.agent.block or 1) % copies:
        pytest.skip("a block is one episode")
    tasks = family.sample(3, "test", torch.Generator().manual_seed(0))
    points = 3
    env = family.make_env(3 * copies, torch.Generator().manual_seed(1))
    blocks = list(run_trial(env, agent.agent, tasks, points, generator=None))

    env = family.make_env(3 * copies, torch.Generator().manual_seed(1))
    agent.reset(num_envs=3 * copies, envs_per_task=copies)
    assert agent.agent.block is not None or len(blocks) == 1
    step = env.reset(tasks)
    for number, block in enumerate(blocks):
        step = env.reset(tasks) if number else step
        for expected in block.decision.action:
            action = agent.act(step.obs)
            torch.testing.assert_close(action, expected, rtol=0, atol=0)
            step = env.step(action)
            agent.observe(step.next_obs, action, step.reward, step.terminated, step.truncated)
    agent.act(step.obs)
    assert agent.num_adaptations == (0 if agent.agent.block is None else points)


@pytest.mark.parametrize("name", AGENTS)
def test_one_environment_has_no_leading_axis_and_numpy_stays_numpy(name):
    experiment = AGENTS[name]
    agent, family = loaded(experiment, deterministic=True), experiment.family
    env = family.make_env(1, torch.Generator().manual_seed(1))
    tasks = family.sample(1, "test", torch.Generator().manual_seed(0))

    def actions(as_numpy: bool) -> list[Any]:
        taken, step = [], env.reset(tasks)
        for _ in range(7):
            obs = step.obs[0].numpy() if as_numpy else step.obs[0]
            action = agent.act(obs)
            assert np.shape(action) == family.action_space.shape
            assert isinstance(action, (np.ndarray, np.generic) if as_numpy else torch.Tensor)
            step = env.step(torch.as_tensor(action)[None])
            after = step.next_obs[0].numpy() if as_numpy else step.next_obs[0]
            agent.observe(after, action, float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0]))
            taken.append(torch.as_tensor(action))
        return taken

    first = actions(as_numpy=True)
    agent.new_task()
    again = actions(as_numpy=False)  # from nothing, as it has forgotten
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


class RecordingAgent:
    """Adapts after two episodes; notes what it is given, and acts by zeros."""

    block = 2
    training_blocks = None

    def __init__(self) -> None:
        self.seen: list[Step] = []
        self.starts: list[list[bool]] = []
        self.trajectories: list[Any] = []

    def prior(self, num_tasks: int, copies: int = 1) -> int:
        return 0

    def observe(self, state: int, action: Any, step: Step) -> int:
        self.seen.append(step)
        return state

    def act(self, state: int, obs: torch.Tensor, generator: Any) -> Decision:
        return Decision(torch.zeros(len(obs), dtype=torch.int64))

    def resample_latent(self, state: int, episode_start: torch.Tensor, generator: Any) -> int:
        self.starts.append(episode_start.tolist())
        return state

    def adapt(self, state: int, trajectory: Any) -> int:
        self.trajectories.append(trajectory)
        return state + 1


def test_rows_that_end_their_episodes_at_different_times_share_a_block():
    recording = RecordingAgent()
    assert isinstance(recording, PosteriorSampling)
    trainer: Any = SimpleNamespace(agent=recording, family=GridNavi(size=3), device="cpu")
    agent = ActingAgent(trainer)
    agent.reset(num_envs=2)
    lengths, elapsed = torch.tensor([1, 3]), torch.zeros(2, dtype=torch.long)
    size = GridNavi(size=3).observation_space.shape[0]
    for number in range(1, 9):  # row 1 has had two episodes after six steps, row 0 after two
        agent.act(torch.full((2, size), float(number)))
        elapsed = elapsed + 1
        end = elapsed == lengths
        elapsed = torch.where(end, 0, elapsed)
        agent.observe(torch.full((2, size), 0.5 + number), torch.zeros(2), [number, -number], end, [False, False])
    trajectory = recording.trajectories[0]
    assert len(recording.trajectories) == 1
    assert trajectory.valid.T.tolist() == [[True] * 2 + [False] * 4, [True] * 6]
    assert trajectory.episode_start.T.tolist() == [[True] * 2 + [False] * 4, [True, False, False] * 2]
    assert trajectory.reward[trajectory.valid[:, 0], 0].tolist() == [1, 2]
    assert trajectory.reward[:, 1].tolist() == [-1, -2, -3, -4, -5, -6]
    assert trajectory.obs[:, 1, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert trajectory.next_obs[:, 1, 0].tolist() == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert recording.starts[:2] == [[True, True], [True, False]]
    end = recording.seen[1]  # the first step, on which row 0 ended an episode
    assert (end.obs[0, 0], end.next_obs[0, 0]) == (2, 1.5)
    assert end.terminated.tolist() == [True, False]


def test_mistakes_in_a_loop_are_one_line():
    agent = loaded(AGENTS["rl2"])
    size = agent.observation_space.shape[0]
    with pytest.raises(UserError, match="without a call of act"):
        agent.observe(np.zeros(size), 0, 0.0, False, False)
    with pytest.raises(UserError, match=rf"obs has shape \[2, {size}\]; must be \[{size}\]"):
        agent.act(np.zeros((2, size)))
    agent.act(np.zeros(size))
    with pytest.raises(UserError, match=r"action has shape \[1\]; must be \[\]"):
        agent.observe(np.zeros(size), [0], 0.0, False, False)
    with pytest.raises(UserError, match="num_envs is 3 and envs_per_task 2"):
        agent.reset(num_envs=3, envs_per_task=2)


def test_actions_are_sampled_from_the_seed_unless_asked_otherwise():
    obs = np.zeros(AGENTS["maml"].family.observation_space.shape)
    drawn = [loaded(AGENTS["maml"], seed=seed).act(obs).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    agent = loaded(AGENTS["maml"])
    assert agent.act(obs, deterministic=True).tolist() == agent.act(obs, deterministic=True).tolist()


def test_a_deterministic_first_action_is_on_the_mean_of_the_posterior():
    obs = np.zeros(AGENTS["pearl"].family.observation_space.shape)
    expected = loaded(AGENTS["pearl"], deterministic=True).act(obs).tolist()
    assert loaded(AGENTS["pearl"]).act(obs, deterministic=True).tolist() == expected
    assert loaded(AGENTS["pearl"]).act(obs).tolist() != expected


# Predicting


@pytest.mark.parametrize("config", [MAMLConfig(hidden_sizes=(8,)), CNPConfig()], ids=["steps", "examples"])
def test_a_learner_predicts_as_in_an_evaluation(config, tmp_path):
    run = metarl.train(SINUSOID, run_dir=tmp_path / "run", overrides={"agent": config}, progress=False)
    learner = metarl.load(run)
    assert isinstance(learner, Predictor)
    episode = Sinusoid().episode(2, "test", generator=torch.Generator().manual_seed(0))
    support, query = episode.support, episode.query
    points = 10 if config == MAMLConfig(hidden_sizes=(8,)) else support.x.shape[1]
    expected = learner.learner.predictions(episode, points)[-1].detach()
    predicted = learner.predict(support=(support.x, support.y), query=query.x)
    torch.testing.assert_close(predicted, expected, rtol=0, atol=0)
    alone = learner.predict(support=(support.x[0].numpy(), support.y[0].numpy()), query=query.x[0].numpy())
    assert isinstance(alone, np.ndarray)
    np.testing.assert_allclose(alone, expected[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"support y has shape \[10\]; must be \[10, 1\]"):
        learner.predict(support=(support.x[0], support.y[0, :, 0]), query=query.x[0])


def test_a_run_of_the_command_is_the_same_to_python(tmp_path):
    run = metarl.train(AGENTS["maml"], run_dir=tmp_path / "run", progress=False)
    assert metarl.evaluate(run, tasks=4) == metarl.evaluate(Run.open(run.path), tasks=4)
