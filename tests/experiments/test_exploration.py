"""The figure of exploration: every episode of every task, in the run's plots."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from agents.pearl import PEARLConfig
from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import Semicircle
from envs.wrappers import TimeAware
from experiments.cli.exploration import MAX_EPISODES, NUM_TASKS, draw_exploration

FAMILY = Semicircle(horizon=4)
CONFIG = PEARLConfig(hidden_sizes=(8,), encoder_sizes=(8,), num_train_tasks=2, capacity=10, actor_gain=2.0)


def pixels(path: Path) -> NDArray[np.uint8]:
    """[H, W, 3]"""
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("family", [GridNavi(horizon=3), TimeAware(Semicircle(horizon=3))])
def test_whatever_shows_a_way_is_drawn(family, tmp_path):
    generator = torch.Generator().manual_seed(0)
    agent = RL2Config().make(family.observation_space, family.action_space, num_iterations=1, generator=generator)
    path = draw_exploration(family, agent, 2, tmp_path / "ways.png")
    assert path is not None
    assert len(np.unique(pixels(path).reshape(-1, 3), axis=0)) > 10


def test_tasks_are_rows_and_episodes_columns(tmp_path):
    generator = torch.Generator().manual_seed(0)
    agent = CONFIG.make(FAMILY.observation_space, FAMILY.action_space, num_iterations=1, generator=generator)
    sizes = []
    for num_episodes in (1, 3, MAX_EPISODES + 5):
        path = draw_exploration(FAMILY, agent, num_episodes, tmp_path / "ways.png")
        assert path is not None
        sizes.append(pixels(path).shape[1::-1])
    width, height = sizes[0]
    assert height % NUM_TASKS == 0
    assert sizes[1:] == [(3 * width, height), (MAX_EPISODES * width, height)]
    first = pixels(tmp_path / "ways.png")
    draw_exploration(FAMILY, agent, MAX_EPISODES, tmp_path / "again.png")
    assert np.array_equal(first, pixels(tmp_path / "again.png"))
    columns = np.split(first[: height // NUM_TASKS], MAX_EPISODES, axis=1)
    assert not np.array_equal(columns[0][40:], columns[1][40:])  # another z, another way


def test_a_way_that_is_only_followed_is_the_one_that_is_rendered_at_every_step():
    generator = torch.Generator().manual_seed(0)
    task = FAMILY.sample(1, "test", generator)
    images = []
    for look in ("render", "follow"):
        env = FAMILY.make_env(1, torch.Generator().manual_seed(1))
        env.reset(task)
        for action in torch.full((3, 1, 2), 0.05):
            getattr(env, look)()
            env.step(action)
        images.append(env.render())
    assert np.array_equal(*images)


def test_only_the_end_of_an_episode_is_drawn(tmp_path, monkeypatch):
    drawn = []
    original = Semicircle.image
    monkeypatch.setattr(Semicircle, "image", lambda *given: drawn.append(1) or original(*given))
    agent = CONFIG.make(FAMILY.observation_space, FAMILY.action_space, num_iterations=1, generator=torch.Generator())
    draw_exploration(FAMILY, agent, 2, tmp_path / "ways.png")
    assert len(drawn) == NUM_TASKS * (2 + 1)  # two episodes, and whether there are images at all


def test_families_without_ways_have_no_figure(tmp_path):
    path = tmp_path / "ways.png"
    assert draw_exploration(BernoulliBandit(), None, 2, path) is None  # type: ignore[arg-type]
    assert not path.exists()
