"""Recipes of an installed package, found by its entry points: a family, an agent and a few-shot learner of a user's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# The user's agent is written against `AgentConfig.make`, in this one place.
AGENT = '''
from dataclasses import dataclass

import torch

from metarl.records import SampledDecision
from metarl.rl.trials import TrialSource


@dataclass(frozen=True)
class StaticConfig:
    """One distribution over actions for every task."""

    learning_rate: float = 0.1

    def make_source(self, family, train, generators):
        return TrialSource(self, family, train, generators)

    def make(self, observation_space, action_space, *, num_iterations, generator):
        return Static(self, int(action_space.n), generator)


class Static:
    block = None
    training_blocks = None

    def __init__(self, config, num_actions, generator):
        self.config = config
        self.logits = torch.zeros(num_actions, device=generator.device)

    def prior(self, num_tasks, copies=1):
        return None

    def observe(self, state, action, step):
        return state

    def act(self, state, obs, generator):
        log_prob = self.logits.log_softmax(0)
        if generator is None:
            action = log_prob.argmax().expand(len(obs))
        else:
            action = torch.multinomial(log_prob.exp(), len(obs), replacement=True, generator=generator)
        return SampledDecision(action, log_prob[action])

    def adapt(self, state, trajectory):
        return state

    def update(self, trial, generator):
        reward, action = trial[0].reward, trial[0].decision.action
        advantage = reward - reward.mean()
        move = torch.zeros_like(self.logits).scatter_add(0, action.flatten(), advantage.flatten())
        self.logits = self.logits + self.config.learning_rate * move / action.numel()
        return {"train/largest": float(self.logits.max())}

    def state_dict(self):
        return {"logits": self.logits}

    def load_state_dict(self, state):
        self.logits = state["logits"]
'''

FAMILY = '''
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.torch_families.torch_env import TorchEnv
from metarl.records import Record


@dataclass(frozen=True)
class Doors(Record):
    open: Tensor  # [N] int64


@dataclass(frozen=True)
class TwoDoors:
    """One of two doors is open."""

    horizon: int = 3
    num_episodes: int = 2
    name = "two_doors"
    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def sample(self, num_tasks, split, generator):
        return Doors(torch.randint(2, (num_tasks,), generator=generator, device=generator.device))

    def make_env(self, num_rows, generator):
        return TorchEnv(self, num_rows, generator)

    def bounds(self, tasks, num_episodes):
        return {"oracle": [float(self.horizon)] * num_episodes}

    def initial_state(self, tasks, generator):
        return torch.zeros(len(tasks), 1, device=generator.device)

    def transition(self, tasks, state, action, generator):
        return state

    def reward(self, tasks, state, action, next_state, generator):
        return (action == tasks.open).float()

    def terminated(self, tasks, next_state):
        return None

    def observation(self, tasks, state):
        return state.clone()
'''

LEARNER = '''
from dataclasses import dataclass

import torch

from metarl.fewshot.source import FewShotSource


@dataclass(frozen=True)
class MeanConfig:
    """Predicts a learned multiple of the support's mean."""

    outer_lr: float = 0.05

    def make_source(self, family, train, generators):
        return FewShotSource(self, family, train, generators)

    def make_learner(self, problem, *, num_iterations, generator):
        return Mean(self, problem, generator)


class Mean:
    point = "step"
    facts = {}

    def __init__(self, config, problem, generator):
        self.config, self.problem = config, problem
        self.scale = torch.zeros((), device=generator.device)

    def predictions(self, episode, num_points):
        mean = episode.support.y.mean(1, keepdim=True).expand(-1, episode.query.x.shape[1], -1)
        return torch.stack([torch.zeros_like(mean)] + [self.scale * mean] * num_points)

    def update(self, experience, generator):
        scale = self.scale.clone().requires_grad_()
        mean = experience.support.y.mean(1, keepdim=True)
        loss = self.problem.losses(scale * mean.expand_as(experience.query.y), experience.query.y).mean()
        loss.backward()
        self.scale = self.scale - self.config.outer_lr * scale.grad
        return {f"train/query_{self.problem.measure.name}": float(loss.detach())}

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]
'''

RECIPE = '''"""{title}"""
import marker
{imports}
from experiments import Experiment, TrainConfig

experiment = Experiment({family}, {agent}, TrainConfig(num_iterations=2, num_tasks=4, eval_tasks=4))
'''

RECIPES = {  # by module: name, title, imports, family and agent
    "doors_rl2": (
        "two_doors/rl2",
        "RL2 finds the open door.",
        "from agents import RL2Config\nfrom my_package.family import TwoDoors",
        "TwoDoors()",
        "RL2Config(hidden_size=8, head_sizes=(), num_epochs=1)",
    ),
    "doors_static": (
        "two_doors/static",
        "An agent that does not adapt.",
        "from my_package.agent import StaticConfig\nfrom my_package.family import TwoDoors",
        "TwoDoors()",
        "StaticConfig()",
    ),
    "mean": (
        "sinusoid/mean",
        "A learner that knows one number.",
        "from metarl.fewshot.regression import Sinusoid\nfrom my_package.learner import MeanConfig",
        "Sinusoid()",
        "MeanConfig()",
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the package as pip would have installed it."""
    folder = tmp_path_factory.mktemp("site")
    package, info = folder / "my_package", folder / "my_package-1.0.dist-info"
    (package / "recipes").mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text("import marker\n")
    (folder / "marker.py").write_text("import os, pathlib\npathlib.Path(os.environ['IMPORTED']).touch()\n")
    for name, text in {"agent": AGENT, "family": FAMILY, "learner": LEARNER}.items():
        (package / f"{name}.py").write_text(text)
    points = ["[metarl.recipes]"]
    for module, (name, title, imports, family, agent) in RECIPES.items():
        text = RECIPE.format(title=title, imports=imports, family=family, agent=agent)
        (package / "recipes" / f"{module}.py").write_text(text)
        points.append(f"{name} = my_package.recipes.{module}")
    points += ["two_doors/broken = my_package.absent", "grid_navi/rl2 = my_package.recipes.mean"]
    (info / "entry_points.txt").write_text("\n".join(points) + "\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    return folder


IN_TURN = """
import json, sys
from experiments.cli.main import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as stop:
        if stop.code:
            raise
"""


def metarl(site: Path, folder: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    """What a process prints that runs these commands in turn, up to the first that fails."""
    root = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), str(site)]),
        "IMPORTED": str(folder / "imported"),
        "OMP_NUM_THREADS": "1",
    }
    words = (sys.executable, "-P", "-c", IN_TURN, json.dumps([command.split() for command in commands]))
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def test_they_are_listed_without_being_imported(site, tmp_path):
    listed = metarl(site, tmp_path, "list experiments")
    lines = dict(line.split(maxsplit=1) for line in listed.stdout.splitlines())
    for name, title, *_ in RECIPES.values():
        assert lines[name] == title
    assert lines["two_doors/broken"] == "from my-package"
    assert "Bayes-optimal" in lines["grid_navi/rl2"]  # ours stays ours
    assert "two_doors/rl2" in metarl(site, tmp_path, "train --help").stdout
    assert not (tmp_path / "imported").exists()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_they_are_trained_resumed_and_evaluated(site, tmp_path, recipe):
    name = RECIPES[recipe][0]
    done = metarl(
        *(site, tmp_path, f"train {name} --run-dir run --seed 1"),
        *("resume run --num-iterations 4", "evaluate run --tasks 5 --json"),
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["experiment"] == name
    answer = json.loads(done.stdout[done.stdout.index("\n{") :])
    assert (answer["family"], answer["num_tasks"], answer["iteration"]) == (name.split("/")[0], 5, 4)


def test_one_that_does_not_load_is_one_line(site, tmp_path):
    failed = metarl(site, tmp_path, "train two_doors/broken")
    assert failed.returncode == 2
    assert failed.stderr.startswith("metarl: recipe two_doors/broken does not load: module my_package.absent: ")
    assert failed.stderr.count("\n") == 1
